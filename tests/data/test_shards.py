"""Tar shards: the same samples as files, in an order that goes from shard to shard, fetched when they are needed."""

import io
import json
import os
import shutil
import sys
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from prunus.data import ShardsData
from prunus.data.shards import write_index
from prunus.errors import DataError, RecipeError
from prunus.train.batches import training_batches
from prunus.train.settings import Train

SHARDS, EACH = 5, 4
FETCH = f"{sys.executable} -c 'import shutil, sys; shutil.copy(*sys.argv[1:])' "


def pixels(number):
    return np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)


def add(archive, name, content):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def write_shard(path, numbers):
    with tarfile.open(path, "w") as archive:
        for number in numbers:
            file = io.BytesIO()
            Image.fromarray(pixels(number)).save(file, "PNG")
            add(archive, f"{number:06d}.png", file.getvalue())
            add(archive, f"{number:06d}.cls", str(number % 3).encode())


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "shards"
    root.mkdir()
    (root / "classes.json").write_text('["a", "b", "c"]')
    for shard in range(SHARDS):
        write_shard(root / f"train-{shard:06d}.tar", range(shard * EACH, (shard + 1) * EACH))
    write_shard(root / "val-000000.tar", range(100, 103))
    return root


def read(split, index):
    return split.picture(index).movedim(0, -1).numpy(), int(split[index][1])


def test_every_sample_is_the_one_that_was_written(root):
    data = ShardsData(root=root, size=(8, 8))
    assert data.class_names == ("a", "b", "c")
    train, validation = data.train(), data.validation()
    assert (len(train), len(validation)) == (SHARDS * EACH, 3)
    for index in range(len(train)):
        image, label = read(train, index)
        assert (image == pixels(index)).all() and label == index % 3
    assert (read(validation, 2)[0] == pixels(102)).all()


def test_an_epoch_is_a_permutation_that_goes_from_shard_to_shard(root):
    split = ShardsData(root=root, size=(8, 8), shuffle=2).train()
    orders = [split.order(torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert sorted(orders[0].tolist()) == list(range(SHARDS * EACH))
    assert torch.equal(orders[0], orders[1]) and not torch.equal(orders[0], orders[2])
    for order in orders:
        groups = [set((part // EACH).tolist()) for part in order.split(2 * EACH)]
        assert [len(group) for group in groups] == [2, 2, 1]  # never more than two shards at a time
        assert (order[: 2 * EACH] // EACH).diff().count_nonzero() > 1  # and these are mixed


def test_an_epoch_is_taken_up_in_its_middle(root):
    settings = Train(batch_size=4, device="cpu", num_workers=1)
    data = ShardsData(root=root, size=(8, 8), shuffle=2)
    whole = list(training_batches(data.train(), settings, seed=0, epoch=1, skip=0))
    rest = list(training_batches(data.train(), settings, seed=0, epoch=1, skip=3))
    assert (len(whole), len(rest)) == (5, 2)
    assert all(
        torch.equal(a, b) for one, two in zip(whole[3:], rest, strict=True) for a, b in zip(one, two, strict=True)
    )


@pytest.mark.parametrize("num_workers", [0, 2])
def test_shards_are_fetched_when_they_are_needed_and_few_are_kept(root, tmp_path, num_workers):
    here = tmp_path / "here"
    here.mkdir()
    shutil.copy(root / "classes.json", here)
    for shard in root.glob("*.tar"):
        shutil.copy(write_index(shard), here)
    fetch = FETCH + f"{root}/{{name}} {{path}}"
    data = ShardsData(root=here, size=(8, 8), shuffle=2, keep=2, fetch=fetch)
    split = data.train()
    assert not list(here.glob("*.tar")) and len(split) == SHARDS * EACH
    settings = Train(batch_size=4, device="cpu", num_workers=num_workers)
    labels = torch.cat([labels for _, labels in training_batches(split, settings, seed=0, epoch=0, skip=0)])
    assert labels.bincount().tolist() == np.bincount(np.arange(SHARDS * EACH) % 3).tolist()
    assert len(list(here.glob("*.tar"))) == 2 and not list(here.glob(".*.tar.*"))


def test_the_index_holds_places_and_classes(root):
    columns = json.loads(write_index(root / "val-000000.tar").read_text())
    assert columns["keys"] == ["000100", "000101", "000102"] and columns["labels"] == [1, 2, 0]
    assert len(columns["offsets"]) == len(columns["sizes"]) == 3


def damaged(root):
    os.truncate(root / "train-000001.tar", 700)


def without_a_class(root):
    with tarfile.open(root / "train-000001.tar", "w") as archive:
        add(archive, "7.png", b"png")


def gone(root):
    ShardsData(root=root, size=(8, 8)).train()
    (root / "train-000001.tar").unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damaged, r"train-000001\.tar cannot be read as a shard"),
        (without_a_class, r"train-000001\.tar: 7 has no class: expected 7\.cls"),
        (gone, r"train-000001\.tar does not exist, and data\.fetch is not set"),
    ],
)
def test_what_is_wrong_with_a_shard_is_said(root, damage, message):
    damage(root)
    with pytest.raises(DataError, match=message):
        ShardsData(root=root, size=(8, 8)).train()[EACH]


def test_a_fetch_that_fails_is_said(root):
    ShardsData(root=root, size=(8, 8)).train()
    (root / "train-000000.tar").unlink()
    data = ShardsData(root=root, size=(8, 8), fetch="ls /absent/{name} {path}")
    with pytest.raises(DataError, match=r"train-000000\.tar cannot be fetched by ls .*No such file"):
        data.train()[0]


def test_settings_that_cannot_be(root):
    with pytest.raises(RecipeError, match="1 <= shuffle <= keep"):
        ShardsData(root=root, shuffle=9, keep=8)
    with pytest.raises(DataError, match=r"holds no shard train-\*\.tar"):
        ShardsData(root=root.parent).train()


def test_what_macos_and_windows_add_to_shards_is_passed_over(tmp_path):
    (tmp_path / "classes.json").write_bytes(b'\xef\xbb\xbf["a", "b", "c"]')
    file = io.BytesIO()
    Image.fromarray(pixels(0)).save(file, "TIFF")
    with tarfile.open(tmp_path / "val-000000.tar", "w") as archive:
        for name in ("._000000.tif", "._000000.cls", "__MACOSX/000000.cls"):
            add(archive, name, b"Mac OS X")
        add(archive, "000000.tif", file.getvalue())
        add(archive, "000000.cls", b"\xef\xbb\xbf2\r\n")
    test = ShardsData(root=tmp_path, size=(8, 8)).test()
    assert len(test) == 1 and int(test[0][1]) == 2 and np.array_equal(test.picture(0).movedim(0, -1), pixels(0))
