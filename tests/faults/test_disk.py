"""The disk runs full in the middle of a training, and has room again."""

import dataclasses
import gc
import os
import subprocess

import pytest
import tiny
import torch

from prunus.errors import CheckpointError
from prunus.records import EpochRecord, read
from prunus.train import checkpoint
from prunus.train.fit import fit


@pytest.fixture
def disk(tmp_path):
    """A file system of 4 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"a small tmpfs cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    gc.collect()  # optimizers and what watches them hold each other, and tensors that were read are mapped from files
    subprocess.run(["umount", folder], check=True)


def test_the_former_checkpoint_stays_and_with_room_the_run_goes_on(disk, tmp_path):
    filler = disk / "filler"

    def fill(name, step, steps, loss):
        if step == 6:  # in epoch 2; epoch 1 is saved
            with pytest.raises(OSError, match="No space left"), filler.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
            os.truncate(filler, filler.stat().st_size - 2 * 4096)  # the records have room, a checkpoint has none

    training = dataclasses.replace(tiny.training(disk / "run"), ticked=fill)
    with pytest.raises(CheckpointError, match=r"cannot be written.*No space left on device.*make room"):
        fit(training, tiny.build(), tiny.example(), tiny.SHRINK)
    assert checkpoint.latest(training.checkpoints).step == 1
    assert [path.name for path in training.checkpoints.iterdir()] == ["000001-step-1"]  # nothing half-written
    filler.unlink()
    again = fit(tiny.training(disk / "run"), tiny.build(), tiny.example(), tiny.SHRINK).model
    undisturbed = fit(tiny.training(tmp_path / "other"), tiny.build(), tiny.example(), tiny.SHRINK).model
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), undisturbed.parameters(), strict=True))
    assert [record.epoch for record in read(disk / "run") if isinstance(record, EpochRecord)] == [1, 2, 3, 4]
