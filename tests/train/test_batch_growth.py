"""The batch that grows into freed memory, and the pressure that waits until the widths have settled."""

import dataclasses
import os
import signal

import pytest
import tiny
import torch
from torch import nn

import prunus
from prunus.budget import Budget
from prunus.budget.controller import Controller
from prunus.errors import InterruptedTrainingError
from prunus.records import EpochRecord, ShrinkRecord, read
from prunus.train.batch_growth import activations, with_grown_batch
from prunus.train.fit import fit
from prunus.train.settings import OptimizerSettings


def test_activations_by_hand():
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 64, 10))
    assert activations(model, torch.randn(2, 3, 8, 8)) == 4 * 64 + 4 * 64 + 4 * 64 + 10
    assert model.training and not model[0]._forward_hooks


@pytest.mark.parametrize(("name", "rate"), [("sgd", 0.1 * 10 / 4), ("adam", 0.1 * (10 / 4) ** 0.5)])
def test_the_learning_rate_follows_the_batch(tmp_path, name, rate):
    training = tiny.training(tmp_path, batch_size=4, optimizer=OptimizerSettings(name=name, learning_rate=0.1))
    assert with_grown_batch(training, 1.0).settings == training.settings
    settings = with_grown_batch(training, 2.6).settings
    assert settings.batch_size == 10
    assert settings.optimizer.learning_rate == pytest.approx(rate)


def stepped(folder, stop=None, controller=tiny.SHRINK, **changes):
    """Train, stopped after step `stop` of the third epoch; return what came out and the batches' sizes by epoch."""
    sizes = {}

    def tick(name, step, steps, loss):
        sizes.setdefault(steps, []).append(step)
        if stop is not None and len(sizes) == 2 and len(sizes[steps]) == stop:
            os.kill(os.getpid(), signal.SIGTERM)

    training = dataclasses.replace(tiny.training(folder, **changes), ticked=tick)
    return fit(training, tiny.build(), tiny.example(), controller), sizes


CHANGES = {"grow_batch": True, "batch_size": 4, "schedule": "poly", "ema_decay": 0.9}


def test_the_batch_grows_and_an_interrupted_training_goes_on_bit_by_bit(tmp_path):
    undisturbed, sizes = stepped(tmp_path / "a", **CHANGES)
    totals = list(sizes)  # steps of the whole training, as they were counted in each epoch
    assert len(totals) >= 2 and totals == sorted(totals, reverse=True)  # fewer and larger batches
    narrow = prunus.trace(undisturbed.model, tiny.example())
    assert narrow.macs() < prunus.trace(tiny.build(), tiny.example()).macs()
    with pytest.raises(InterruptedTrainingError):
        stepped(tmp_path / "b", stop=2, **CHANGES)
    again, _ = stepped(tmp_path / "b", **CHANGES)
    for a, b in zip(undisturbed.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(a, b)
    records = [[r for r in read(tmp_path / name) if isinstance(r, EpochRecord)] for name in "ab"]
    for a, b in zip(*records, strict=True):
        assert dataclasses.replace(a, seconds=0.0) == dataclasses.replace(b, seconds=0.0)
    rates = [record.learning_rate for record in records[0]]
    factor = [(1 - epoch / 4) ** 0.9 for epoch in range(4)]
    assert rates[0] == pytest.approx(3e-3) and rates[2] > 3e-3 * factor[2]


def cuts(folder):
    return [record.epoch for record in read(folder) if isinstance(record, ShrinkRecord)]


def test_the_pressure_waits_until_the_widths_have_settled(tmp_path):
    always = Controller(budget=Budget(macs=0.4), begin=0.0, end=0.9, settled=0.01)
    never = dataclasses.replace(always, settled=1.0)
    stepped(tmp_path / "always", controller=always, epochs=10)
    assert cuts(tmp_path / "always")[0] == 7  # five epochs to look back on, then one of pressure
    fitted, _ = stepped(tmp_path / "never", controller=never, epochs=10)
    first = cuts(tmp_path / "never")[0]
    assert 7 <= first <= 9
    macs = prunus.trace(fitted.model, tiny.example()).macs()
    assert macs <= 0.4 * prunus.trace(tiny.build(), tiny.example()).macs()  # the budget is met all the same
