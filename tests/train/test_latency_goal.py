"""A budget in milliseconds while a network trains."""

import dataclasses
import os
import signal

import pytest
import tiny
import torch

from prunus.budget import Budget
from prunus.budget.controller import Controller
from prunus.errors import BudgetError, InterruptedTrainingError
from prunus.records import NoteRecord, ShrinkRecord, read
from prunus.train.fit import fit

SHRINK = Controller(budget=Budget(latency=0.5), begin=0.25, end=0.75)


def meter(model):
    """A machine that takes a microsecond a parameter."""
    return sum(parameter.numel() for parameter in model.parameters()) / 1000


def timed(folder, **changes):
    return dataclasses.replace(tiny.training(folder), meter=meter, **changes)


def test_the_budget_is_met_on_the_network_that_training_has_made(tmp_path):
    fitted = fit(timed(tmp_path), tiny.build(), tiny.example(), SHRINK)
    assert 0.4 < meter(fitted.model) / meter(tiny.build()) <= 0.5
    assert len([record for record in read(tmp_path) if isinstance(record, ShrinkRecord)]) == 2
    notes = [record.text for record in read(tmp_path) if isinstance(record, NoteRecord)]
    limit = f"{0.5 * meter(tiny.build()):,.3f} ms are allowed"
    assert [note.partition(":")[0] for note in notes] == ["narrow, after epoch 0", "narrow, after epoch 2"]
    assert all("MACs are aimed at" in note and limit in note for note in notes)


@pytest.mark.parametrize("step", [6, 10, 13])
def test_it_goes_on_bit_by_bit(tmp_path, step):
    undisturbed = fit(timed(tmp_path / "a"), tiny.build(), tiny.example(), SHRINK)

    def stop(name, now, steps, loss):
        if now == step:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(InterruptedTrainingError):
        fit(timed(tmp_path / "b", ticked=stop), tiny.build(), tiny.example(), SHRINK)
    again = fit(timed(tmp_path / "b"), tiny.build(), tiny.example(), SHRINK)
    assert again.plan == undisturbed.plan
    for found, wanted in zip(again.model.parameters(), undisturbed.model.parameters(), strict=True):
        assert torch.equal(found, wanted)


def test_a_share_is_one_of_what_the_network_takes_now(tmp_path):
    """The run goes on where everything takes twice as long."""
    undisturbed = fit(timed(tmp_path / "a", reference=tiny.build()), tiny.build(), tiny.example(), SHRINK)

    def stop(name, now, steps, loss):
        if now == 6:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(InterruptedTrainingError):
        fit(timed(tmp_path / "b", reference=tiny.build(), ticked=stop), tiny.build(), tiny.example(), SHRINK)
    slower = dataclasses.replace(
        timed(tmp_path / "b", reference=tiny.build()), meter=lambda network: 2 * meter(network)
    )
    assert fit(slower, tiny.build(), tiny.example(), SHRINK).plan == undisturbed.plan


def test_a_share_of_one_bounds_nothing(tmp_path):
    controller = dataclasses.replace(SHRINK, budget=Budget(latency=1.0))
    fitted = fit(timed(tmp_path), tiny.build(), tiny.example(), controller)
    assert meter(fitted.model) == meter(tiny.build())
    assert fit(timed(tmp_path), tiny.build(), tiny.example(), controller).plan == fitted.plan  # from its checkpoint


def test_without_a_meter_nothing_is_trained(tmp_path):
    with pytest.raises(BudgetError, match="needs a meter"):
        fit(tiny.training(tmp_path), tiny.build(), tiny.example(), SHRINK)
    assert not (tmp_path / "records.jsonl").exists()
