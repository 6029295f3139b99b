"""A budget in milliseconds under a latency model: exact where the model is, corrected where it is not."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import nn

import prunus
from prunus.budget.budget import Budget
from prunus.budget.choices import layer_choices
from prunus.budget.greedy_selection import floors
from prunus.budget.latency_model import PRIOR, Curve, LatencyModel, Unit
from prunus.budget.milliseconds import solve_milliseconds
from prunus.budget.solve import solve
from prunus.errors import BudgetError


def network():
    layers, before = [], 3
    for width in (64, 128, 96, 160):
        layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU()]
        before = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, 10))


def stepped(out, into, step=16):
    """The milliseconds of a target that computes 16 channels as fast as one, and dislikes narrow inputs."""
    return 1e-5 * np.ceil(out / step) * step * (into + 40)


@pytest.fixture(scope="module")
def groups():
    torch.manual_seed(0)
    return prunus.trace(network(), torch.randn(1, 3, 8, 8))


@pytest.fixture(scope="module")
def importance(groups):
    return torch.rand(len(groups), generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def model_of(groups, slope=1.0):
    """Return the model of `stepped`, with the units of the MAC terms."""
    units = []
    for term in groups.cost.macs:
        levels = tuple(np.unique([1, *range(16, factor.numel() + 1, 16), factor.numel()]) for factor in term.factors)
        values = stepped(*np.meshgrid(*levels, indexing="ij")) * slope
        units.append(
            Unit(name=term.module, curve=Curve(levels, values, (16, 1), (1.0, 1.0)), sizes=term.factors, written=1.0)
        )
    return LatencyModel(units=tuple(units), others=(), weights=PRIOR, step=16)


def truth(groups, alive, overhead=0.0):
    sizes = [
        [(factor < 0).sum() + alive[factor[factor >= 0]].sum() for factor in term.factors] for term in groups.cost.macs
    ]
    return overhead + sum(float(stepped(*map(float, size))) for size in sizes)


def masks(groups, number):
    generator = torch.Generator().manual_seed(1)
    for _ in range(number):
        share = torch.rand(len(groups.layer_names), generator=generator)
        yield ~(groups.exact & (torch.rand(len(groups), generator=generator) > share[groups.layers]))


def test_tables_are_the_prediction(groups, importance):
    model = dataclasses.replace(
        model_of(groups), weights=np.array([1.1, 1e-9, 1e-4, 2e-4, 0.2]), others=groups.cost.macs[:1], block=4
    )
    layers = layer_choices(groups, importance, {}, 1)
    tables = model.tables(groups, [layer.at(np.arange(0, layer.counts.size, 7)) for layer in layers])
    for choices in ([0] * len(layers), [3] * len(layers), [2, 5, 1, 7]):
        alive = groups.all_alive()
        for layer, choice in zip(layers, choices, strict=True):
            alive[layer.order[: 7 * choice]] = False
        assert tables.at(choices) == pytest.approx(model.predicted(alive))


def test_predicts_what_it_was_measured_on(groups):
    model = model_of(groups)
    for alive in masks(groups, 20):
        assert model.predicted(alive) == pytest.approx(truth(groups, alive), rel=0.02)


def test_a_fit_finds_the_overhead(groups):
    measured = [(alive, truth(groups, alive, overhead=3.0)) for alive in masks(groups, 12)]
    fitted = model_of(groups).fitted(measured)
    errors = [abs(fitted.predicted(alive) / truth(groups, alive, 3.0) - 1) for alive in masks(groups, 30)]
    assert np.median(errors) < 0.03
    assert fitted.predicted(measured[-1][0]) == pytest.approx(measured[-1][1])


@pytest.mark.parametrize("share", [0.7, 0.5, 0.3])
@pytest.mark.parametrize("overhead", [0.0, 0.1])
def test_meets_the_bound_as_measured_though_the_model_is_off(groups, importance, share, overhead):
    asked = []

    def measure(gone):
        asked.append(gone)
        return truth(groups, ~gone, overhead)

    limit = share * truth(groups, groups.all_alive(), overhead)
    floor = floors(groups, Budget(latency=share))
    reached = solve_milliseconds(groups, importance, model_of(groups, slope=1.3), measure, limit, floor)
    assert reached.met
    within = sum(each.measured_ms <= limit for each in reached.rounds)  # these are measured twice
    assert len(asked) == len(reached.rounds) + within
    assert len(reached.rounds) <= 5
    assert reached.best.measured_ms == measure(reached.best.solution.removed) <= limit
    assert "predicted" in str(reached)


def test_a_lucky_measurement_does_not_meet_the_bound(groups, importance):
    asked = []

    def measure(gone):
        seen = any(torch.equal(gone, each) for each in asked)
        asked.append(gone)
        return truth(groups, ~gone) * (1 if seen else 0.94)

    limit = 0.5 * truth(groups, groups.all_alive())
    floor = floors(groups, Budget(latency=0.5))
    reached = solve_milliseconds(groups, importance, model_of(groups), measure, limit, floor)
    assert reached.met
    assert 0.97 * limit <= truth(groups, ~reached.best.solution.removed) <= limit


def test_keeps_more_than_widths_chosen_by_macs(groups, importance):
    limit = 0.5 * truth(groups, groups.all_alive())
    floor = floors(groups, Budget(latency=0.5))
    reached = solve_milliseconds(groups, importance, model_of(groups), lambda gone: truth(groups, ~gone), limit, floor)
    macs, lost = float(groups.macs()), math.inf
    for share in np.linspace(0.02, 1, 60):  # the largest that fits, of those chosen by multiply-adds
        try:
            found = solve(groups, importance, {"macs": share * macs}, floor)
        except BudgetError:
            continue
        if truth(groups, ~found.removed) <= limit:
            lost = min(lost, found.lost)
    assert reached.best.solution.lost < 0.95 * lost


def test_widths_fall_on_the_steps_of_the_target(groups, importance):
    units = []
    for unit in model_of(groups).units:
        curve = dataclasses.replace(unit.curve, steps=(16, 16))
        units.append(dataclasses.replace(unit, curve=curve))
    model = dataclasses.replace(model_of(groups), units=tuple(units))
    floor, whole = floors(groups, Budget(latency=0.5)), model.predicted(groups.all_alive())
    reached = solve_milliseconds(groups, importance, model, lambda gone: model.predicted(~gone), 0.5 * whole, floor)
    widths = groups.widths(~reached.best.solution.removed)
    assert all(widths[name] % 16 == 0 for name in ("0", "2", "4", "6"))


def test_a_further_bound_holds_as_well(groups, importance):
    limit, macs = 0.6 * truth(groups, groups.all_alive()), 0.3 * groups.macs()
    floor = floors(groups, Budget(latency=0.5))
    settings = (groups, importance, model_of(groups), lambda gone: truth(groups, ~gone), limit, floor)
    reached = solve_milliseconds(*settings, bounds={"macs": macs})
    assert groups.macs(~reached.best.solution.removed) <= macs
    assert reached.best.measured_ms <= limit


def test_a_bound_out_of_reach_names_the_floor_and_what_holds_it(groups, importance):
    floor = floors(groups, Budget(latency=0.5))
    with pytest.raises(BudgetError, match=r"smallest network takes .* ms, most of it by the model in .*\d ms"):
        solve_milliseconds(groups, importance, model_of(groups), lambda gone: 5 + truth(groups, ~gone), 4.0, floor)


def test_nothing_goes_where_the_bound_holds(groups, importance):
    whole = truth(groups, groups.all_alive())
    reached = solve_milliseconds(groups, importance, model_of(groups), lambda gone: truth(groups, ~gone), 2 * whole, {})
    assert not bool(reached.best.solution.removed.any())
    assert not reached.met
    assert "nothing has to be removed" in str(reached)
