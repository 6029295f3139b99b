"""Whatever fails during a cut, the network, its optimizer and its average are as they were, and training goes on."""

import copy
import itertools

import loops
import pytest
import torch
from torch import nn

from prunus.errors import EditError, TrainingError
from prunus.penalties.zeros import zero_
from prunus.shrink import checks, in_place, network
from prunus.surgery.removal import spare_layers


class InjectedError(Exception):
    pass


PLACES = [
    *((network, name) for name in ("apply", "bypass", "carried", "become_", "refill_", "outputs_in_both")),
    (checks, "difference"),
    *((network, name) for name in ("removal", "ShrinkRecord", "_require_rounding")),
    *((in_place, name) for name in ("set_values_", "_reset_", "_set_sizes_", "paths_of")),
]


def injected(monkeypatch, module, name, at, *, after):
    """Let the `at`-th call of a function fail, before it does anything or after all of it; return whether it did."""
    original, calls, failed = getattr(module, name), itertools.count(), []

    def failing(*args, **kwargs):
        fails = next(calls) == at
        if fails:
            failed.append(True)
            if not after:
                raise InjectedError
        result = original(*args, **kwargs)
        if fails:
            raise InjectedError
        return result

    monkeypatch.setattr(module, name, failing)
    return failed


class Vanishing(nn.Module):
    """A network that loses a whole block once a layer of it is zero."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.block = loops.Residual(8)
        self.head = nn.Linear(8, 4)

    def forward(self, images):
        return self.head(self.block(self.stem(images)).mean((2, 3)))


def prepared(kind):
    """Return a network in the midst of training, some of its channels zero."""
    model = loops.build(kind)
    optimizer = loops.OPTIMIZERS["adamw"](model.parameters())
    average = copy.deepcopy(model)
    shrinker = loops.shrinker_of(model, optimizer)
    shrinker.follow(average)
    loops.train(model, optimizer, shrinker, range(3))
    groups = shrinker.groups
    chosen = torch.zeros(len(groups), dtype=torch.bool)
    layers = {loops.Net: ("body.0", "stem.0"), Vanishing: ("block.body.0", "stem")}[kind]
    for layer in layers:
        members = (groups.layers == groups.layer_names.index(layer)).nonzero().flatten()
        chosen[members if layer == "block.body.0" else members[:5]] = True
    zero_(model, groups, chosen)
    return model, optimizer, average, shrinker, spare_layers(groups, chosen)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("module", "name"), PLACES, ids=[name for _, name in PLACES])
@pytest.mark.parametrize("kind", [loops.Net, Vanishing])
def test_a_failure_at_any_place_changes_nothing(monkeypatch, kind, module, name, after):
    model, optimizer, average, shrinker, chosen = prepared(kind)
    before = loops.snapshot(model, optimizer, average)
    held = shrinker.state_dict(), shrinker.groups
    failures = 0
    for at in itertools.count():
        with monkeypatch.context() as patch:
            failed = injected(patch, module, name, at, after=after)
            try:
                shrinker.network.cut(chosen, "here", epoch=1)
            except InjectedError:
                failures += 1
            else:
                assert not failed
                break  # called no more often: the cut went through
        loops.assert_same(loops.snapshot(model, optimizer, average), before)
        loops.assert_same(shrinker.state_dict(), held[0])
        assert shrinker.groups is held[1]
    if name != "paths_of" or kind is Vanishing:  # of replaced modules alone
        assert failures


@pytest.mark.parametrize("kind", [loops.Net, Vanishing])
def test_after_a_failed_cut_the_next_step_does_it(monkeypatch, kind):
    model = loops.build(kind)
    optimizer = loops.OPTIMIZERS["sgd"](model.parameters())
    shrinker = loops.shrinker_of(model, optimizer, every=4)
    records, failures = [], 0
    with monkeypatch.context() as patch:
        injected(patch, network, "refill_", 0, after=True)
        for step in range(loops.STEPS):
            try:
                records += loops.train(model, optimizer, shrinker, [step])
            except InjectedError:
                failures += 1
    assert failures == 1 and records


class Listed(nn.Module):
    """Its code runs the layers of a plain list, which no module of torch knows to change."""

    def __init__(self):
        super().__init__()
        self.first, self.block, self.last = nn.Conv2d(3, 8, 3), loops.Residual(8), nn.Conv2d(8, 4, 1)
        self.order = [self.first, self.block, self.last]

    def forward(self, images):
        for layer in self.order:
            images = layer(images)
        return images.mean((2, 3))


def test_a_network_that_would_not_follow_in_place_is_refused_and_stays():
    model = loops.build(Listed)
    optimizer = loops.OPTIMIZERS["sgd"](model.parameters())
    shrinker = loops.shrinker_of(model, optimizer)
    groups = shrinker.groups
    chosen = groups.layers == groups.layer_names.index("block.body.0")
    zero_(model, groups, chosen)
    model.block.body[2].bias.data.fill_(0.5)  # the block is not the identity
    before = loops.snapshot(model, optimizer)
    with pytest.raises(EditError, match="order refers to block, which is replaced"):
        shrinker.network.cut(spare_layers(groups, chosen), "here", epoch=1)
    loops.assert_same(loops.snapshot(model, optimizer), before)


class Depthwise(nn.Module):
    """Its depthwise layer counts channels in an attribute."""

    def __init__(self):
        super().__init__()
        self.stem, self.depthwise = nn.Conv2d(3, 12, 1), nn.Conv2d(12, 12, 3, groups=12)
        self.head = nn.Linear(12, 4)

    def forward(self, images):
        return self.head(self.depthwise(self.stem(images)).mean((2, 3)))


def test_a_network_that_does_not_run_in_place_is_refused_and_stays(monkeypatch):
    """As one would whose code hides a size: here nobody sets them."""
    model = loops.build(Depthwise)
    optimizer = loops.OPTIMIZERS["sgd"](model.parameters())
    shrinker = loops.shrinker_of(model, optimizer)
    groups = shrinker.groups
    chosen = groups.exact & (torch.arange(len(groups)) < 4)
    zero_(model, groups, chosen)
    before = loops.snapshot(model, optimizer)
    with monkeypatch.context() as patch:
        patch.setattr(in_place, "_set_sizes_", lambda *given: None)
        with pytest.raises(TrainingError, match="Depthwise does not follow in place: it no longer runs"):
            shrinker.network.cut(chosen, "here", epoch=1)
    loops.assert_same(loops.snapshot(model, optimizer), before)
    assert shrinker.network.cut(chosen, "here", epoch=1) is not None
    assert model.depthwise.groups == model.stem.out_channels == 12 - int(chosen.sum()) < 12
