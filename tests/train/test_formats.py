"""Checkpoints that earlier versions wrote, kept beside this file, are gone on from."""

import shutil
from pathlib import Path

import pytest
import tiny
import torch

from prunus.records import EpochRecord, read
from prunus.train import checkpoint
from prunus.train.fit import fit

FORMATS = sorted((Path(__file__).parent / "formats").iterdir())


def test_there_is_one_of_each_earlier_format():
    assert [int(path.name) for path in FORMATS] == list(range(1, checkpoint.FORMAT_VERSION))


@pytest.mark.parametrize("folder", FORMATS, ids=lambda path: path.name)
def test_a_shrunken_training_goes_on_in_the_middle_of_its_third_epoch(tmp_path, folder):
    shutil.copytree(folder, tmp_path / "checkpoints" / "narrow")
    found = checkpoint.latest(tmp_path / "checkpoints" / "narrow")
    progress = found.state["progress"]
    assert (progress["epoch"], progress["step"], found.notes) == (2, 2, ())
    torch.manual_seed(0)
    model = tiny.TinySegmenter(num_classes=len(tiny.DATA.class_names), width=4)
    steps = []
    training = tiny.training(tmp_path, ema_decay=0.9)
    training = type(training)(**{**vars(training), "ticked": lambda name, step, of, loss: steps.append(step)})
    fitted = fit(training, model, tiny.example(), tiny.SHRINK)
    assert steps == list(range(11, 17))  # of 16
    assert [record.epoch for record in read(tmp_path) if isinstance(record, EpochRecord)] == [3, 4]
    assert fitted.plan.to_json() != found.state["plan"]  # it has shrunk once more
    assert all(parameter.isfinite().all() for parameter in fitted.model.parameters())
