"""The recipe is changed between a run and its resumption."""

import dataclasses

import pytest
import tiny
import torch

from prunus.errors import CheckpointError, RecipeError
from prunus.pipeline.claim import claim
from prunus.records import EpochRecord, read
from prunus.train.fit import fit
from prunus.train.settings import OptimizerSettings

RECIPE = {"name": "tiny", "train": {"epochs": 4, "optimizer": {"learning_rate": 3e-3}}}
CHANGED = {"name": "tiny", "train": {"epochs": 4, "optimizer": {"learning_rate": 1e-4}}}


class Stopped(Exception):  # noqa: N818
    pass


def begin(folder):
    """Train two epochs and a half."""

    def tick(name, step, steps, loss):
        if step == 10:
            raise Stopped

    training = dataclasses.replace(tiny.training(folder), ticked=tick)
    with pytest.raises(Stopped):
        fit(training, tiny.build(), tiny.example(), tiny.SHRINK)


def test_what_differs_is_said_and_refused_unless_told(tmp_path):
    assert not claim(tmp_path, RECIPE)
    begin(tmp_path)
    assert claim(tmp_path, RECIPE)
    with pytest.raises(RecipeError) as refusal:
        claim(tmp_path, CHANGED)
    assert "`train.optimizer.learning_rate` is 0.003 there, 0.0001 here" in str(refusal.value)
    assert f"to go on from its checkpoints under this recipe, remove {tmp_path / 'recipe.yaml'}" in str(refusal.value)
    (tmp_path / "recipe.yaml").unlink()
    assert claim(tmp_path, CHANGED)
    assert claim(tmp_path, CHANGED)  # it is its recipe now
    with pytest.raises(RecipeError):
        claim(tmp_path, RECIPE)


def test_told_to_go_on_the_new_settings_hold(tmp_path):
    begin(tmp_path)
    rates = []
    optimizer = OptimizerSettings(learning_rate=1e-4, weight_decay=0.5)
    training = tiny.training(tmp_path, optimizer=optimizer, schedule="constant")
    step = torch.optim.Adam.step

    def noted(self, *arguments, **keywords):
        rates.append([(group["lr"], group["weight_decay"]) for group in self.param_groups])
        return step(self, *arguments, **keywords)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.Adam, "step", noted)
        fit(training, tiny.build(), tiny.example(), tiny.SHRINK)
    assert rates == [[(1e-4, 0.5), (1e-4, 0.0)]] * 8  # from the first step on
    assert [record.epoch for record in read(tmp_path) if isinstance(record, EpochRecord)] == [1, 2, 3, 4]


def test_another_optimizer_cannot_take_over(tmp_path):
    begin(tmp_path)
    training = tiny.training(tmp_path, optimizer=tiny.SGD)
    with pytest.raises(CheckpointError, match="another network or optimizer: its optimizer knew amsgrad, betas"):
        fit(training, tiny.build(), tiny.example(), tiny.SHRINK)
