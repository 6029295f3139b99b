"""The solver: as good as trying everything on every small network, within the budget, and its bound is one."""

import itertools
import math

import nets
import numpy as np
import pytest
import torch
from torch import nn

import prunus
from prunus.budget import elimination
from prunus.budget.budget import Budget, excess
from prunus.budget.choices import below, layer_choices, sampled
from prunus.budget.controller import Goal, press
from prunus.budget.elimination import elimination_order, minimum
from prunus.budget.greedy_selection import all_removable, floors, greedy_selection
from prunus.budget.solve import solve
from prunus.budget.tables import Tables, cost_tables
from prunus.errors import BudgetError

TRIED = 5000  # combinations of widths at most


def drawn(groups, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(len(groups), generator=generator, dtype=torch.float64)


def between(groups, kind, smallest, share):
    """Return the bound at `share` of the way from the smallest network to the whole one."""
    least, most = (groups.cost.total(kind, alive) for alive in (smallest, groups.all_alive()))
    return math.ceil(least + share * (most - least))


def everything(groups, importance, bounds, layers):
    """Return the least importance lost over all widths within `bounds`."""
    best = math.inf
    for choices in itertools.product(*(range(layer.counts.size) for layer in layers)):
        alive = groups.all_alive()
        for layer, choice in zip(layers, choices, strict=True):
            alive[layer.order[: layer.counts[choice]]] = False
        if excess(groups, alive, bounds) <= 0:
            best = min(best, float(importance[~alive].sum()))
    return best


@pytest.mark.parametrize("name", nets.CASES)
@pytest.mark.parametrize("multiple_of", [1, 2])
def test_is_as_good_as_trying_everything(name, multiple_of):
    case = nets.CASES[name]
    groups = prunus.trace(case.model(), case.inputs())
    importance, floor = drawn(groups), floors(groups, Budget(macs=0.5))
    layers = layer_choices(groups, importance, floor, multiple_of)
    tried = math.prod(layer.counts.size for layer in layers)
    smallest = groups.all_alive()
    for layer in layers:
        smallest[layer.order[: layer.counts[-1]]] = False
    for share in (0.2, 0.6):
        bounds = {kind: between(groups, kind, smallest, share) for kind in ("macs", "params")}
        found = solve(groups, importance, bounds, floor, multiple_of)
        assert excess(groups, ~found.removed, bounds) <= 0
        assert found.lost == pytest.approx(float(importance[found.removed].sum()))
        assert found.kept == pytest.approx(float(importance[groups.exact & ~found.removed].sum()))
        assert found.bound <= found.lost * (1 + 1e-9)
        if tried <= TRIED:
            best = everything(groups, importance, bounds, layers)
            assert found.lost <= best * 1.001
            assert found.bound <= best * (1 + 1e-9)


def wide(*widths):
    layers = [nn.Conv2d(3, widths[0], 3, padding=1)]
    for before, after in itertools.pairwise(widths):
        layers += [nn.ReLU(), nn.Conv2d(before, after, 3, padding=1)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(widths[-1] * 36, 4))


def test_loses_less_than_greedy_selection_and_proves_it():
    groups = prunus.trace(wide(48, 96, 64, 80), torch.randn(1, 3, 6, 6))
    importance = drawn(groups)
    for share in (0.7, 0.4, 0.15):
        budget = Budget(macs=share)
        settings = (groups, importance, budget.absolute(groups), floors(groups, budget))
        found, greedy = solve(*settings), greedy_selection(*settings)
        assert found.bound <= found.lost < float(importance[greedy].sum())
        assert found.gap <= 0.01


def test_the_bound_covers_widths_between_the_samples():
    groups = prunus.trace(wide(90, 70), torch.randn(1, 3, 6, 6))
    importance, budget = drawn(groups) ** 2, Budget(macs=0.3)
    bounds, floor = budget.absolute(groups), floors(groups, budget)
    found = solve(groups, importance, bounds, floor)
    best = everything(groups, importance, bounds, layer_choices(groups, importance, floor))
    assert found.bound <= best <= found.lost
    assert found.gap <= 0.002


def test_lowered_importance_lies_below_all_chords():
    groups = prunus.trace(wide(90, 70), torch.randn(1, 3, 6, 6))
    for layer in layer_choices(groups, drawn(groups), floors(groups, Budget(macs=0.5))):
        for most in (2, 7, 32):
            places = sampled(layer, most)
            chords = np.interp(layer.counts, layer.counts[places], below(layer, places))
            assert places.size == most
            assert (chords <= layer.lost + 1e-12).all()


def test_channels_that_occur_in_different_sizes_are_decided_apart():
    case = nets.CASES["attention"]
    groups = prunus.trace(case.model(), case.inputs())
    layers = layer_choices(groups, drawn(groups), {})
    tables = cost_tables(groups, layers, ("macs", "params"))
    for choices in itertools.product(*(range(layer.counts.size) for layer in layers)):
        alive = groups.all_alive()
        for layer, choice in zip(layers, choices, strict=True):
            alive[layer.order[: layer.counts[choice]]] = False
        for kind in tables:
            assert tables[kind].at(choices) == pytest.approx(groups.cost.total(kind, alive))


def test_what_has_to_stay_stays():
    model = wide(48, 96, 64)
    groups = prunus.trace(model, torch.randn(1, 3, 6, 6))
    importance, budget = drawn(groups), Budget(macs=0.3, keep=("2",), multiple_of=8, min_share=0.25)
    found = solve(groups, importance, budget.absolute(groups), floors(groups, budget), budget.multiple_of)
    widths = groups.widths(~found.removed)
    assert widths["2"] == 96
    assert all(width % 8 == 0 for name, width in widths.items() if name in ("0", "4"))
    assert widths["0"] >= 12 and widths["4"] >= 16
    assert not bool((found.removed & ~groups.exact).any())


def test_a_budget_out_of_reach_is_refused():
    groups = prunus.trace(wide(16, 16), torch.randn(1, 3, 6, 6))
    importance, budget = drawn(groups), Budget(macs=0.001)
    floor = floors(groups, budget)
    smallest = groups.macs(~all_removable(groups, importance, floor))
    with pytest.raises(BudgetError, match=f"smallest reachable is macs {smallest:,}"):
        solve(groups, importance, budget.absolute(groups), floor)


def test_a_budget_that_holds_removes_nothing():
    groups = prunus.trace(wide(16, 16), torch.randn(1, 3, 6, 6))
    found = solve(groups, drawn(groups), {"macs": groups.macs()}, {})
    assert not bool(found.removed.any())
    assert found.lost == found.bound == found.gap == 0


def test_solves_alike_twice():
    groups = prunus.trace(wide(48, 96, 64), torch.randn(1, 3, 6, 6))
    importance, bounds = drawn(groups), {"macs": 0.4 * groups.macs(), "params": 0.5 * groups.params()}
    assert torch.equal(*(solve(groups, importance, bounds, {}).removed for _ in range(2)))


@pytest.mark.parametrize("seed", range(5))
def test_elimination_finds_the_minimum_and_mini_buckets_a_bound(seed, monkeypatch):
    random = np.random.default_rng(seed)
    sizes = [3, 2, 4, 3, 2]
    scopes = [(0,), (0, 1), (1, 2), (0, 2), (2, 3, 4), (0, 4), (3,)]
    tables = Tables(0.5, {scope: random.normal(size=[sizes[one] for one in scope]) for scope in scopes})
    best = min(tables.at(choices) for choices in itertools.product(*map(range, sizes)))
    order = elimination_order(scopes, sizes)
    bound, chosen = minimum(tables, sizes, order)
    assert bound == pytest.approx(best)
    assert tables.at(chosen) == pytest.approx(best)
    monkeypatch.setattr(elimination, "MOST_ENTRIES", 12)
    bound, chosen = minimum(tables, sizes, order)
    assert bound <= best + 1e-12 <= tables.at(chosen) + 2e-12


def test_a_budget_names_its_solver():
    model = wide(48, 96, 64)
    groups = prunus.trace(model, torch.randn(1, 3, 6, 6))
    importance, left = drawn(groups), {}
    for solver in ("greedy", "exact"):
        budget = Budget(macs=0.4, solver=solver)
        small = prunus.apply(prunus.select(model, groups, budget=budget, importance=importance), model)
        assert prunus.trace(small, torch.randn(1, 3, 6, 6)).macs() <= 0.4 * groups.macs()
        goal = Goal.of(groups, budget)
        pressed = press(groups, importance, goal, 1.0, budget.multiple_of)
        left[solver] = float(importance[~pressed].sum())
        assert groups.widths(~pressed) == prunus.trace(small, torch.randn(1, 3, 6, 6)).widths()
    assert left["exact"] > left["greedy"]
    with pytest.raises(BudgetError, match="choose one of greedy, exact"):
        Budget(macs=0.4, solver="best")
    with pytest.raises(BudgetError, match=r"approximate is 'no': True or False"):
        Budget(macs=0.5, approximate="no")
