"""`Shrinker.use`: the network is narrow before the trainer has made its optimizer."""

import loops
import pytest
import torch
from torch import nn

import prunus
from prunus.errors import TrainingError


def nothing(model):
    return torch.optim.SGD(model.parameters(), lr=0.0)


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
@pytest.mark.parametrize("stop", [3, 11, 20])
def test_narrow_first_and_an_optimizer_afterwards_equals_the_undisturbed_training(kind, stop):
    make, steps = loops.OPTIMIZERS[kind], loops.STEPS
    whole = loops.build()
    optimizer = make(whole.parameters())
    loops.train(whole, optimizer, loops.shrinker_of(whole, optimizer))

    model = loops.build()
    optimizer = make(model.parameters())
    shrinker = loops.shrinker_of(model, optimizer)
    loops.train(model, optimizer, shrinker, range(stop))

    again = loops.build()
    going_on = loops.shrinker_of(again, nothing(again))
    going_on.load_state_dict(shrinker.state_dict())
    again.load_state_dict(model.state_dict())
    anew = make(again.parameters())
    anew.load_state_dict(optimizer.state_dict())
    going_on.use(anew)
    loops.train(again, anew, going_on, range(stop, steps))
    loops.assert_same(dict(again.state_dict()), dict(whole.state_dict()))
    assert going_on.plan.edits[: len(shrinker.plan.edits)] == shrinker.plan.edits


def test_the_former_optimizer_is_no_longer_watched():
    model = loops.build()
    former, own = nothing(model), loops.OPTIMIZERS["adamw"](model.parameters())
    shrinker = loops.shrinker_of(model, former)
    shrinker.use(own)
    nn.functional.cross_entropy(model(loops.EXAMPLE), torch.tensor([0])).backward()
    former.step()
    shrinker.step()
    assert (shrinker.clock.period, shrinker.clock.step) == (0, 0)
    own.step()
    shrinker.step()
    assert (shrinker.clock.period, shrinker.clock.step) == (1, 0)  # a period is one step here


def test_layers_that_were_frozen_since_keep_their_channels():
    model = loops.build()
    shrinker = loops.shrinker_of(model, nothing(model), budget=prunus.Budget(macs=0.8))
    model.body[0].requires_grad_(False)
    model.body[2].requires_grad_(False)
    own = loops.OPTIMIZERS["adamw"]([each for each in model.parameters() if each.requires_grad])
    shrinker.use(own)
    loops.train(model, own, shrinker)
    assert model.body[0].out_channels == 24


def test_an_optimizer_of_another_network_is_refused():
    model = loops.build()
    shrinker = loops.shrinker_of(model, nothing(model))
    with pytest.raises(TrainingError, match="trains another network"):
        shrinker.use(nothing(loops.build()))
