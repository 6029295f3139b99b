"""Unreadable images among good ones: they stop the run, or are replaced, named and counted up to a ceiling."""

import dataclasses
import os

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from torch import nn

from prunus.data import ImageFolderData
from prunus.errors import DataError, RecipeError
from prunus.records import EpochRecord, NoteRecord, read
from prunus.tasks.classification import Classification
from prunus.train.fit import fit

NUM = 20
BROKEN = ("1/3.png", "1/4.png")


@pytest.fixture
def data(tmp_path):
    for folder in ("train", "val"):
        for index in range(NUM):
            path = tmp_path / "data" / folder / str(index % 2) / f"{index // 2}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(index).integers(0, 256, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).save(path)
    for name in BROKEN:
        path = tmp_path / "data/train" / name
        os.truncate(path, path.stat().st_size // 2)
    return ImageFolderData(root=tmp_path / "data", size=(8, 8), on_error="skip", max_skipped=0.1)


def trained(folder, data, **changes):
    training = tiny.training(folder, name="wide", **changes)
    training = dataclasses.replace(training, data=data, task=Classification().bind(data))
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    return fit(training, model, data.train()[0][0][None])


@pytest.mark.parametrize("num_workers", [0, 1])
def test_skipped_they_are_named_once_and_the_run_ends(tmp_path, data, num_workers):
    trained(tmp_path / "run", data, num_workers=num_workers)
    records = read(tmp_path / "run")
    assert [record.epoch for record in records if isinstance(record, EpochRecord)] == [1, 2, 3, 4]
    notes = [record.text for record in records if isinstance(record, NoteRecord)]
    assert len(notes) == 1
    assert notes[0].startswith(f"2 of {NUM} training samples cannot be read and are replaced by the next")
    assert all(f"train/{name} cannot be read as an image" in notes[0] for name in BROKEN)


def test_the_next_that_can_be_read_takes_the_place(data):
    split = data.train()
    labels = [int(split[index][1]) for index in range(NUM)]
    assert labels == [0] * 10 + [1] * 10
    assert torch.equal(split[13][0], split[15][0]) and not torch.equal(split[13][0], split[12][0])
    assert len(split.unreadable()) == 2


@pytest.mark.parametrize("num_workers", [0, 1])
def test_above_the_ceiling_the_run_stops(tmp_path, data, num_workers):
    strict = dataclasses.replace(data, max_skipped=0.05)
    with pytest.raises(DataError, match=r"2 of 20 samples cannot be read, and data.max_skipped allows 1; the last: .*"):
        trained(tmp_path / "run", strict, num_workers=num_workers)


def test_raised_by_default_with_its_name(tmp_path, data):
    with pytest.raises(DataError, match=r"train/1/[34]\.png cannot be read as an image"):
        trained(tmp_path / "run", dataclasses.replace(data, on_error="raise"))


def test_a_validation_image_is_never_skipped(tmp_path, data):
    os.truncate(tmp_path / "data/val/0/0.png", 20)
    with pytest.raises(DataError, match=r"val/0/0\.png cannot be read"):
        trained(tmp_path / "run", data)


def test_a_ceiling_is_a_share(data):
    with pytest.raises(RecipeError, match="between 0 and 1, not 3"):
        dataclasses.replace(data, max_skipped=3).train()
