"""A budget in milliseconds while a network trains."""

import dataclasses
import os
import signal

import pytest
import tiny
import torch
from modelled_meter import FakeMeter

import prunus
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
    assert all("MACs are the target" in note and limit in note for note in notes)


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


EXACT = dataclasses.replace(SHRINK, budget=Budget(latency=0.5, solver="exact"))


def modelled(folder, **changes):
    fake = FakeMeter(tiny.example(), call=0.0, dear={"body.0": 20.0})
    return dataclasses.replace(tiny.training(folder), meter=fake, **changes)


def test_the_model_of_the_latency_chooses_in_every_segment(tmp_path):
    controller = dataclasses.replace(EXACT, begin=0.0, end=0.75)
    training = modelled(tmp_path)
    fitted = fit(training, tiny.build(), tiny.example(), controller)
    share = training.meter(fitted.model) / training.meter(tiny.build())
    assert 0.97 * 0.5 <= share <= 0.5
    assert len([record for record in read(tmp_path) if isinstance(record, ShrinkRecord)]) == 3
    notes = [record.text for record in read(tmp_path) if isinstance(record, NoteRecord)]
    assert [note.partition(":")[0] for note in notes] == ["narrow, after epoch 0", "narrow, after epoch 2"]
    assert all("predicted -> measured" in note for note in notes)


def test_milliseconds_are_spent_where_they_buy_more_than_macs_do(tmp_path):
    """One convolution is dear: with the model it goes first, by multiply-adds it does not."""
    networks = {}
    for solver in ("exact", "greedy"):
        controller = dataclasses.replace(SHRINK, budget=Budget(latency=0.5, solver=solver))
        networks[solver] = fit(modelled(tmp_path / solver), tiny.build(), tiny.example(), controller).model
    macs = {name: prunus.trace(network, tiny.example()).macs() for name, network in networks.items()}
    assert macs["exact"] > 1.1 * macs["greedy"]


@pytest.mark.parametrize("step", [2, 6, 10, 13])
def test_with_a_model_it_goes_on_bit_by_bit(tmp_path, step):
    undisturbed = fit(modelled(tmp_path / "a"), tiny.build(), tiny.example(), EXACT)

    def stop(name, now, steps, loss):
        if now == step:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(InterruptedTrainingError):
        fit(modelled(tmp_path / "b", ticked=stop), tiny.build(), tiny.example(), EXACT)
    again = fit(modelled(tmp_path / "b"), tiny.build(), tiny.example(), EXACT)
    assert again.plan == undisturbed.plan
    for found, wanted in zip(again.model.parameters(), undisturbed.model.parameters(), strict=True):
        assert torch.equal(found, wanted)


def test_a_model_says_what_holds_a_budget_out_of_reach(tmp_path):
    controller = dataclasses.replace(EXACT, budget=Budget(latency_ms=0.10001, solver="exact"))
    with pytest.raises(BudgetError, match=r"smallest network takes .* most of it by the model in .*body"):
        fit(modelled(tmp_path), tiny.build(), tiny.example(), controller)


def test_a_shrinker_keeps_its_model(tmp_path):
    def made():
        model = tiny.build()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        fake = FakeMeter(tiny.example(), call=0.0, dear={"body.0": 20.0})
        return prunus.Shrinker(model, optimizer, tiny.example(), budget=EXACT.budget, steps=20, meter=fake), fake

    shrinker, fake = made()
    shrinker.begin_period()
    known = shrinker.pressure.goal.latency
    assert known is not None and {"encoder.3.body.0", "decoder"} <= {unit.name for unit in known.units}
    again, _ = made()
    again.load_state_dict(shrinker.state_dict())
    assert again.pressure.goal == shrinker.pressure.goal
    wide = fake(shrinker.network.model)
    shrinker.finish()
    assert 0.97 * 0.5 <= fake(shrinker.network.model) / wide <= 0.5


class Once(FakeMeter):
    """Makes its model once, from the wide network."""

    def latency_model(self, model, groups, measure):
        assert self.reached is None
        return super().latency_model(model, groups, measure)


def test_a_family_keeps_what_is_known_of_its_target():
    model, wide = tiny.build(), tiny.build()
    optimizer, images = torch.optim.SGD(model.parameters(), lr=0.01), tiny.example()
    fake = Once(images, call=0.0, dear={"body.0": 20.0})
    budgets = [Budget(latency=share, solver="exact") for share in (0.8, 0.6)]
    shrinker = prunus.Shrinker(model, optimizer, images, budget=budgets, steps=16, every=2, meter=fake, reference=wide)
    shares = []
    for _ in range(16):
        optimizer.zero_grad()
        model(images).square().mean().backward()
        optimizer.step()
        if shrinker.step() is not None:
            shares.append(fake(model) / fake(wide))
    assert shares == sorted(shares, reverse=True)
    assert any(0.97 * 0.8 <= share <= 0.8 for share in shares)
    assert 0.97 * 0.6 <= shares[-1] <= 0.6


def test_without_a_meter_nothing_is_trained(tmp_path):
    with pytest.raises(BudgetError, match="needs a meter"):
        fit(tiny.training(tmp_path), tiny.build(), tiny.example(), SHRINK)
    assert not (tmp_path / "records.jsonl").exists()
