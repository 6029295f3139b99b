import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from prunus import storage
from prunus.errors import CheckpointError
from prunus.train import checkpoint

CONTENT = {"weight": torch.arange(6.0).reshape(2, 3)}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def write(folder, step, **options):
    tensors = {"weight": CONTENT["weight"] + step}
    return checkpoint.write(folder, step=step, tensors=tensors, state={"epoch": step}, **options)


def mount(*arguments):
    return subprocess.run(["mount", *map(str, arguments)], capture_output=True, text=True)


def unmount(folder):
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def tiny_disk(tmp_path):
    """A file system of 256 KB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    result = mount("-t", "tmpfs", "-o", "size=256k", "tmpfs", folder)
    if result.returncode:
        pytest.skip(f"a small tmpfs cannot be mounted here: {result.stderr.strip()}")
    yield folder
    unmount(folder)


def test_round_trip_of_every_dtype_and_layout(tmp_path):
    shared = torch.arange(12.0)
    tensors = {
        "float64": torch.tensor([0.1, float("nan"), float("inf"), -0.0], dtype=torch.float64),
        "bfloat16": torch.randn(3).bfloat16(),
        "bool": torch.tensor([True, False]),
        "uint8": torch.arange(256).to(torch.uint8),
        "int64": torch.tensor([-(2**63), 2**63 - 1]),
        "scalar": torch.tensor(3.5),
        "empty": torch.zeros(0, 4),
        "empty too": torch.zeros(0),
        "strided": torch.randn(4, 5).t(),
        "channels last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "whole": shared,
        "tied": shared,
        "view": shared[3:7],
        "parameter": torch.nn.Parameter(torch.randn(2)),
    }
    state = {"loss": 0.1 + 0.2, "best": float("-inf"), "names": ["a", None, True], "nested": {"ü": 2**80}}
    path = checkpoint.write(tmp_path, step=1200, tensors=tensors, state=state)
    found = checkpoint.read(path)
    assert (found.step, found.state, found.notes) == (1200, state, ())
    assert found.tensors.keys() == tensors.keys()
    for name, tensor in tensors.items():
        read = found.tensors[name]
        assert (read.dtype, read.shape) == (tensor.dtype, tensor.shape), name
        assert torch.equal(read.nan_to_num(7), tensor.nan_to_num(7)), name


def test_latest_is_the_one_written_last_whatever_its_step(tmp_path):
    assert checkpoint.latest(tmp_path / "absent") is None
    assert checkpoint.latest(tmp_path) is None
    write(tmp_path, 20)
    write(tmp_path, 10)
    found = checkpoint.latest(tmp_path)
    assert (found.step, found.state, found.notes) == (10, {"epoch": 10}, ())
    torch.testing.assert_close(found.tensors["weight"], CONTENT["weight"] + 10, rtol=0, atol=0)


def test_the_last_few_and_the_best_are_kept(tmp_path):
    for step in range(1, 7):
        write(tmp_path, step, keep=2, best=step in (1, 3))
    assert names(tmp_path) == ["000003-step-3", "000005-step-5", "000006-step-6"]
    assert checkpoint.best(tmp_path).step == 3
    write(tmp_path, 7, keep=1, best=True)
    assert names(tmp_path) == ["000007-step-7"]


def test_best_is_none_where_none_was(tmp_path):
    write(tmp_path, 1)
    assert checkpoint.best(tmp_path) is None


def test_keep_must_leave_one(tmp_path):
    with pytest.raises(CheckpointError, match="at least 1"):
        write(tmp_path, 1, keep=0)


def flip_a_byte(file):
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def truncate(file):
    os.truncate(file, file.stat().st_size // 2)


@pytest.mark.parametrize("damage", [flip_a_byte, truncate, Path.unlink, lambda file: file.write_bytes(b"")])
@pytest.mark.parametrize("name", [checkpoint.TENSORS, checkpoint.STATE, checkpoint.MANIFEST])
def test_a_damaged_newest_one_gives_way_to_the_one_before_and_it_is_said(tmp_path, damage, name):
    whole = write(tmp_path, 1)
    newest = write(tmp_path, 2)
    damage(newest / name)
    with pytest.raises(CheckpointError, match=f"{newest.name} is damaged.*{name}"):
        checkpoint.read(newest)
    found = checkpoint.latest(tmp_path)
    assert found.step == 1
    (note,) = found.notes
    assert newest.name in note
    assert note.endswith(f"; {whole.name} is taken")


def test_what_is_written_after_damage_is_newer_than_the_damaged(tmp_path):
    write(tmp_path, 100)
    truncate(write(tmp_path, 200) / checkpoint.TENSORS)
    assert checkpoint.latest(tmp_path).step == 100
    write(tmp_path, 150, keep=1)
    assert (checkpoint.latest(tmp_path).step, checkpoint.latest(tmp_path).notes) == (150, ())
    assert names(tmp_path) == ["000003-step-150"]


def test_all_damaged_is_an_error_that_names_each(tmp_path):
    paths = [write(tmp_path, step) for step in (1, 2)]
    for path in paths:
        flip_a_byte(path / checkpoint.STATE)
    with pytest.raises(CheckpointError, match="none of the 2 checkpoints") as caught:
        checkpoint.latest(tmp_path)
    assert all(path.name in str(caught.value) for path in paths)
    assert "taken" not in str(caught.value)


def test_another_format_is_not_taken_for_damage(tmp_path):
    write(tmp_path, 1)
    path = write(tmp_path, 2) / checkpoint.MANIFEST
    path.write_text(storage.sealed({**storage.unsealed(path.read_text()), "format": 99}))
    with pytest.raises(CheckpointError, match="has format 99 and this Prunus reads formats up to 2"):
        checkpoint.latest(tmp_path)


def test_strangers_in_the_folder_are_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "step-3").mkdir()
    write(tmp_path, 1)
    assert checkpoint.latest(tmp_path).step == 1
    assert names(tmp_path) == ["000001-step-1", "notes.txt", "step-3"]


@pytest.mark.parametrize(
    ("tensors", "state"), [({}, {"module": torch.nn.ReLU()}), ({"a": [1.0]}, {}), ({"a": None}, {})]
)
def test_what_cannot_be_stored_is_refused_before_anything_is_written(tmp_path, tensors, state):
    write(tmp_path, 1)
    with pytest.raises(CheckpointError, match="step 2 holds a value that cannot be stored"):
        checkpoint.write(tmp_path, step=2, tensors=tensors, state=state)
    assert names(tmp_path) == ["000001-step-1"]


def test_a_full_disk_leaves_the_former_checkpoint_and_nothing_half_written(tiny_disk):
    write(tiny_disk, 1)
    with pytest.raises(CheckpointError, match=r"No space left on device.*make room"):
        checkpoint.write(tiny_disk, step=2, tensors={"big": torch.zeros(200_000)}, state={})
    assert names(tiny_disk) == ["000001-step-1"]
    assert checkpoint.latest(tiny_disk).step == 1
    write(tiny_disk, 3)
    assert checkpoint.latest(tiny_disk).step == 3


def test_a_read_only_file_system(tiny_disk):
    write(tiny_disk, 1)
    assert mount("-o", "remount,ro", tiny_disk).returncode == 0
    with pytest.raises(CheckpointError, match="Read-only file system"):
        write(tiny_disk, 2)
    assert checkpoint.latest(tiny_disk).step == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_write_permission(tmp_path):
    write(tmp_path, 1)
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(CheckpointError, match="Permission denied"):
            write(tmp_path, 2)
        assert names(tmp_path) == ["000001-step-1"]
    finally:
        tmp_path.chmod(0o755)


def test_a_file_where_the_folder_should_be(tmp_path):
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(CheckpointError, match="Not a directory"):
        write(tmp_path / "checkpoints", 1)


KILLED = """
import os, signal, sys, torch
from pathlib import Path
from prunus.train import checkpoint
def die(*arguments):
    os.kill(os.getpid(), signal.SIGKILL)
{patch} = die
checkpoint.write(Path(sys.argv[1]), step=2, tensors={{"weight": torch.zeros(9)}}, state={{}})
"""


@pytest.mark.parametrize("patch", ["Path.rename", "os.fsync"])
def test_killed_while_writing(tmp_path, patch):
    write(tmp_path, 1)
    process = subprocess.run([sys.executable, "-c", KILLED.format(patch=patch), str(tmp_path)])
    assert process.returncode == -signal.SIGKILL
    assert checkpoint.latest(tmp_path).step == 1
    assert len(names(tmp_path)) == 2  # the abandoned one is still there, out of sight of `latest`
    write(tmp_path, 3)
    assert names(tmp_path) == ["000001-step-1", "000002-step-3"]


def test_no_bit_of_a_manifest_can_be_flipped_unseen(tmp_path):
    write(tmp_path, 1)
    path = write(tmp_path, 2)
    content = (path / checkpoint.MANIFEST).read_bytes()
    for place in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        (path / checkpoint.MANIFEST).write_bytes(flipped)
        found = checkpoint.latest(tmp_path)  # the one before, or this one as it was written
        assert (found.step, found.state["epoch"]) in ((1, 1), (2, 2))
        assert (found.step == 1) == bool(found.notes)


def test_a_manifest_without_a_seal_is_read_and_its_own_gaps_are_damage(tmp_path):
    path = write(tmp_path, 1)
    manifest = storage.unsealed((path / checkpoint.MANIFEST).read_text())
    (path / checkpoint.MANIFEST).write_text(json.dumps(manifest))
    assert checkpoint.latest(tmp_path).step == 1
    del manifest["files"]["state.json"]["sha256"]
    (path / checkpoint.MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match=r"none of the 1 checkpoints .* is whole"):
        checkpoint.latest(tmp_path)
