"""Greedy selection: the same as a plain reference on random networks, and linear in the number of layers."""

import random
import sys

import nets
import pytest
import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

import prunus
from prunus.budget.budget import Budget
from prunus.budget.greedy_selection import SLACK, floors, greedy_selection
from prunus.budget.running_cost import RunningCost
from prunus.errors import BudgetError
from prunus.graph import ChannelGroups, Role, Slot
from prunus.graph.cost import CostModel, Term
from prunus.surgery.removal import whole_dimensions


def chain(widths, seed, last_fixed=1):
    """Return the groups of layers in a row: each reads what the one before makes, some channels are in no group, some
    refused, every third layer adds to the channels of the one before. `last_fixed` makes the last layer costly."""
    draw = random.Random(seed)
    slots, macs, params, layers, total = [], [], [], [], 0
    before = torch.full((3,), -1)
    for number, width in enumerate(widths):
        own = torch.arange(total, total + width)
        own[[draw.random() < 0.1 for _ in range(width)]] = -1
        if number % 3 == 2 and len(before) == width:  # as behind a skip connection
            own = before
        layers += [number] * width
        total += width
        path = f"layer{number:05d}"
        slots += [
            Slot(f"{path}.weight", 0, Role.PRODUCER, own),
            Slot(f"{path}.weight", 1, Role.CONSUMER, before),
            Slot(f"{path}.bias", 0, Role.PRODUCER, own),
        ]
        fixed = last_fixed if number == len(widths) - 1 else draw.randint(1, 9)
        macs.append(Term(path, fixed, (own, before)))
        params += [Term(path, 9, (own, before)), Term(path, 1, (own,))]
        before = own
    generator = torch.Generator().manual_seed(seed)
    exact = torch.rand(total, generator=generator) < 0.9
    names = tuple(f"layer{number:05d}" for number in range(len(widths)))
    cost = CostModel(tuple(macs), tuple(params))
    return ChannelGroups(tuple(slots), exact, ~exact, torch.tensor(layers), names, (), cost)


def reference(groups, importance, bounds, floor, multiple_of):
    """Compute the selection as plainly as possible: scan everything for each layer, sum every cost anew."""

    def excess(removed):
        return max(groups.cost.total(kind, ~removed) / bound - 1 for kind, bound in bounds.items())

    saving = torch.zeros(len(groups), dtype=torch.float64)
    for kind, bound in bounds.items():
        saving += groups.cost.saving(kind, groups.all_alive()) / bound
    last = torch.zeros(len(groups), dtype=torch.bool)
    for inside in whole_dimensions(groups):
        last[inside[importance[inside].argmax()]] = True
    ranked = []
    for layer, name in enumerate(groups.layer_names):
        inside = (groups.layers == layer) & groups.exact
        free = inside & ~last if floor.get(name, 1) else inside
        order = free.nonzero().flatten()
        order = order[importance[order].argsort(stable=True)]
        width, best = int(inside.sum()), 0.0
        while order.numel():
            size = width % multiple_of or multiple_of
            if order.numel() < size or width - size < floor.get(name, 1):
                break
            bundle, order, width = order[:size], order[size:], width - size
            best = max(best, float(importance[bundle].sum() / saving[bundle].sum().clamp(min=1e-30)))
            ranked.append((best, len(ranked), layer, bundle))
    ranked.sort(key=lambda item: item[:2])
    removed, taken = torch.zeros(len(groups), dtype=torch.bool), []
    for _, _, layer, bundle in ranked:
        if excess(removed) <= 0:
            break
        removed[bundle] = True
        taken.append((layer, bundle))
    if excess(removed) > 0:
        return None
    closed = {layer for layer, _ in taken[-1:]}
    for layer, bundle in reversed(taken[:-1]):
        if excess(removed) > -SLACK:
            break
        if layer not in closed:
            removed[bundle] = False
            if excess(removed) > 0:
                removed[bundle] = True
                closed.add(layer)
    return removed


def agree(groups, seed, budget):
    """Whether selection is possible, and then equal to the reference."""
    importance = torch.rand(len(groups), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    vanishing = [name for number, name in enumerate(groups.layer_names) if number % 4 == 1]
    settings = importance, budget.absolute(groups), floors(groups, budget, vanishing), budget.multiple_of
    expected = reference(groups, *settings)
    if expected is None:
        with pytest.raises(BudgetError, match="cannot be met"):
            greedy_selection(groups, *settings)
    else:
        assert torch.equal(greedy_selection(groups, *settings), expected)
    return expected is not None


def budgets(draw):
    share, kind = draw.choice([0.3, 0.6, 0.9]), draw.choice(["macs", "params"])
    settings = {"min_share": draw.choice([0.0, 0.1, 0.3]), "multiple_of": draw.choice([1, 1, 2, 4])}
    other = {"params": 0.8, "macs": 0.8} if draw.random() < 0.3 else {}
    return Budget(**{**other, kind: share}, **settings)


def count_restored(monkeypatch):
    """Return a list to which each bundle is added that selection tries to restore."""
    tried, restore = [], RunningCost.restore

    def noting(self, bundle):
        tried.append(bundle)
        restore(self, bundle)

    monkeypatch.setattr(RunningCost, "restore", noting)
    return tried


def test_equal_to_the_reference_on_random_networks(monkeypatch):
    restored, reached = count_restored(monkeypatch), 0
    for seed in range(120):
        draw = random.Random(seed)
        widths = [draw.choice([1, 2, 5, 8, 8, 8, 13]) for _ in range(draw.randint(1, 12))]
        groups = chain(widths, seed, last_fixed=draw.choice([1, 1, 400]))
        if all(groups.cost.total(kind, groups.all_alive()) for kind in ("macs", "params")):
            reached += agree(groups, seed, budgets(draw))
    assert reached > 60 and len(restored) > 60


def test_equal_to_the_reference_on_the_zoo():
    reached = 0
    for case in nets.CASES.values():
        if case.exact >= 6:
            groups = prunus.trace(case.model(), case.inputs())
            reached += sum(agree(groups, seed, budgets(random.Random(seed))) for seed in range(3))
    assert reached > 60


class Elements(TorchDispatchMode):
    """Counts the elements that torch's operators touch: a view none, indexing as many as it has indices."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        name = func.name().partition(".")[0]
        touched = pytree.tree_leaves(args[1:] if "index" in name else (args, result))
        if not func.is_view:
            self.count += sum(each.numel() for each in touched if isinstance(each, torch.Tensor))
        self.count += 1
        return result


def work(num_layers):
    """Return what one selection costs: elements that torch touches, and lines that Python executes in RunningCost."""
    groups = chain([8] * num_layers, 0, last_fixed=4 * num_layers)
    importance = torch.rand(len(groups), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    importance[groups.layers == num_layers - 1] += 1e12  # costly and important: it goes last, and others are restored
    budget = Budget(macs=0.49, multiple_of=4)
    lines, file = [0], RunningCost.__init__.__code__.co_filename

    def count(frame, event, argument):
        lines[0] += event == "line"
        return count if frame.f_code.co_filename == file else None

    before = sys.gettrace()
    sys.settrace(count)
    try:
        with Elements() as elements:
            greedy_selection(groups, importance, budget.absolute(groups), floors(groups, budget), budget.multiple_of)
    finally:
        sys.settrace(before)
    return elements.count + lines[0]


def test_the_work_grows_with_the_layers_and_not_with_their_square(monkeypatch):
    restored = count_restored(monkeypatch)
    few, many = work(400), work(1600)
    assert len(restored) > 120
    assert many < 4 * 1.4 * few  # four times the layers: bisection adds two rounds to some ten; a square would be 16
