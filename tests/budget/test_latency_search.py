"""Budgets in milliseconds: the largest network that a meter calls quick enough."""

import math

import nets
import pytest
import torch
from torch import nn

import prunus
from prunus.budget.latency_search import MARGIN, NEAR
from prunus.errors import BudgetError


@pytest.fixture(scope="module")
def wide():
    """A network of 32 and 24 channels, and its groups."""
    model = nets.sequence(nets.conv(3, 32), nn.ReLU(), nets.conv(32, 24), nn.ReLU(), channels=24)
    nets.randomised(model, 0)
    return model, prunus.trace(model, nets.CASES["plain"].inputs(torch.float32))


def parameters(model):
    """A machine that takes a microsecond a parameter."""
    return sum(parameter.numel() for parameter in model.parameters()) / 1000


def tiled(model):
    """A machine that computes eight channels at once, and takes its time to begin."""
    widths = [module.out_channels for module in model.modules() if isinstance(module, nn.Conv2d)]
    return 0.5 + sum(math.ceil(width / 8) for width in widths)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.9])
def test_the_largest_quick_enough_is_found(wide, share):
    model, groups = wide
    seen = []

    def meter(network):
        seen.append(parameters(network))
        return seen[-1]

    small = prunus.apply(prunus.select(model, groups, budget=prunus.Budget(latency=share), meter=meter), model)
    taken, bound = parameters(small) / parameters(model), (1 - MARGIN) * share
    assert bound - NEAR * share - 0.03 < taken <= bound  # and a channel of so small a network
    assert parameters(small) in seen and len(seen) <= 11  # it is a network that was measured, and once more at the end


@pytest.mark.parametrize("share", [0.4, 0.6, 0.8])
def test_a_machine_of_steps_is_believed(wide, share):
    model, groups = wide
    small = prunus.apply(prunus.select(model, groups, budget=prunus.Budget(latency=share), meter=tiled), model)
    assert tiled(small) <= share * tiled(model)
    nothing_less = prunus.Budget(
        macs=min(1.0, prunus.trace(small, torch.randn(1, 3, 8, 8)).macs() / groups.macs() + 0.15)
    )
    larger = prunus.apply(prunus.select(model, groups, budget=nothing_less), model)
    assert tiled(larger) > share * tiled(model) * (1 - MARGIN)


def test_other_bounds_hold_too(wide):
    model, groups = wide
    for other, tighter in ((0.3, "params"), (0.9, "latency")):
        budget = prunus.Budget(params=other, latency=0.6)
        small = prunus.apply(prunus.select(model, groups, budget=budget, meter=parameters), model)
        share = parameters(small) / parameters(model)
        assert share <= min(other, 0.6)
        assert share > 0.28 if tighter == "params" else share > 0.54


def test_nothing_goes_where_the_network_is_quick_already(wide):
    model, groups = wide
    budget = prunus.Budget(latency_ms=2 * parameters(model))
    assert not prunus.select(model, groups, budget=budget, meter=parameters).edits


def test_the_whole_network_is_asked_first(wide):
    """Where narrower networks are slower, or none is quicker, what is quick enough stays as it is."""
    model, groups = wide
    for meter, budget in (
        (lambda network: 100 / parameters(network), prunus.Budget(latency_ms=15)),
        (lambda network: 5.0, prunus.Budget(latency_ms=5.2)),
        (lambda network: 5, prunus.Budget(latency=1.0)),
    ):
        assert not prunus.select(model, groups, budget=budget, meter=meter).edits


def test_a_meter_may_do_what_it_likes_to_a_network(wide):
    model, groups = wide

    def half(network):
        return torch.tensor(parameters(network.half().eval()))

    prunus.select(model, groups, budget=prunus.Budget(latency=0.5), meter=half)
    assert model.training and all(parameter.dtype == torch.float32 for parameter in model.parameters())


def test_one_bad_measurement_of_the_smallest_does_not_refuse(wide):
    model, groups = wide
    told = iter([1.0, 1.0, 9.0, 0.3, 0.3, 0.49])
    assert prunus.select(model, groups, budget=prunus.Budget(latency=0.5), meter=lambda network: next(told, 0.49)).edits


def test_what_was_reached_is_measured_once_more_and_told(wide):
    model, groups = wide
    plan = prunus.select(model, groups, budget=prunus.Budget(latency=0.5), meter=parameters)
    taken = parameters(prunus.apply(plan, model))
    (note,) = plan.notes
    assert f"takes {taken:.4g} ms, {taken / parameters(model):.1%} of the network's {parameters(model):.4g} ms" in note
    assert note in str(plan) and "too much" not in note


def test_a_load_that_changes_under_a_meter_of_one_moment_is_noticed(wide):
    """The machine is twice as slow while the first measurements are taken, the whole network's among them."""
    model, groups = wide
    loads = iter([2.0, 2.0])
    plan = prunus.select(
        model, groups, budget=prunus.Budget(latency=0.5), meter=lambda network: parameters(network) * next(loads, 1.0)
    )
    assert parameters(prunus.apply(plan, model)) <= 0.5 * parameters(model)
    seen = set[float]()

    def forgetful(network):  # what is measured again takes nine times as long, but for the whole network
        size = parameters(network)
        again, whole = size in seen, size == parameters(model)
        seen.add(size)
        return size if whole or not again else 9 * size

    plan = prunus.select(model, groups, budget=prunus.Budget(latency=0.5), meter=forgetful)
    assert "That is too much" in plan.notes[0] and "LatencyMeter" in plan.notes[0]


def test_milliseconds_on_a_backend(wide):
    model, groups = wide
    example = nets.CASES["plain"].inputs(torch.float32)[0]
    meter = lambda network: prunus.deploy.latency_ms(network, example, backend="torch", repeats=3)  # noqa: E731
    assert not prunus.select(model, groups, budget=prunus.Budget(latency_ms=1e6), meter=meter).edits


def test_what_cannot_be_met_or_measured_is_refused(wide):
    model, groups = wide
    least = r"smallest reachable network takes 0\.\d+ ms, with [\d,]+ of [\d,]+ MACs"
    with pytest.raises(BudgetError, match=rf"latency <= 0\.01 ms\) cannot be met: the {least}"):
        prunus.select(model, groups, budget=prunus.Budget(latency_ms=0.01), meter=parameters)
    with pytest.raises(BudgetError, match=r"needs a meter, not None: meter=prunus\.deploy\.LatencyMeter"):
        prunus.select(model, groups, budget=prunus.Budget(latency=0.5))
    with pytest.raises(BudgetError, match="needs a meter, not 5"):
        prunus.select(model, groups, budget=prunus.Budget(latency=0.5), meter=5)
    with pytest.raises(BudgetError, match=r"meter fails on a network: TypeError: .*inputs.*returns its milliseconds"):
        prunus.select(model, groups, budget=prunus.Budget(latency=0.5), meter=prunus.deploy.latency_ms)
    for nonsense in ("3 ms", float("nan"), 0.0, True):
        with pytest.raises(BudgetError, match="a number of milliseconds above zero"):
            prunus.select(model, groups, budget=prunus.Budget(latency=0.5), meter=lambda network, told=nonsense: told)
