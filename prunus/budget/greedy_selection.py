"""Which channel groups go so that a network fits a budget, by their importance."""

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from prunus.budget.budget import Budget, excess, layer_sizes
from prunus.budget.removal import wholes
from prunus.errors import BudgetError
from prunus.graph import ChannelGroups, Role

SLACK = 0.01  # of a bound: where more is left unused, what still fits in stays


def floors(groups: ChannelGroups, budget: Budget, skippable: Collection[str] = ()) -> dict[str, int]:
    """Return the least number of groups each layer keeps under `budget`: its share, and two, since a layer of one
    channel has none left to choose from; of those that may vanish, its share alone. A layer whose channels others make
    too, as those that a skip is added to, may not: they would vanish with it."""
    free = set(skippable) - _tied(groups)
    return {
        name: max(0 if name in free else min(2, size), round(size * budget.min_share))
        for name, size in layer_sizes(groups).items()
    }


def _tied(groups: ChannelGroups) -> set[str]:
    """Return the layers with a channel that a kernel or matrix of another layer makes as well."""
    kernels = {slot.layer for slot in groups.slots if slot.dim > 0}
    makers = [slot for slot in groups.slots if slot.role is Role.PRODUCER and slot.layer in kernels]
    counts = torch.zeros(len(groups) + 1, dtype=torch.long)
    for layer in dict.fromkeys(slot.layer for slot in makers):
        inside = torch.unique(torch.cat([slot.groups for slot in makers if slot.layer == layer]))
        counts[inside] += 1  # index -1, of no group, is the last
    shared = torch.unique(groups.layers[counts[:-1] > 1]).tolist()
    return {groups.layer_names[number] for number in shared if number >= 0}


def victims(
    groups: ChannelGroups,
    importance: Tensor,
    bounds: Mapping[str, float],
    floor: Mapping[str, int],
    multiple_of: int = 1,
) -> Tensor:
    """Return the groups to remove so that the cost just fits `bounds`: bool [num_groups].

    Groups go in the order of importance / cost saved; in each layer the less important one goes first, in bundles
    that leave a multiple of `multiple_of`; a layer keeps its floor. The cost falls with each bundle, so bisection
    finds the fewest bundles that suffice. Where the last of them takes much more than had to go, others stay again
    for it, the more important ones first.

    Raises:
        BudgetError: the bounds cannot be met.
    """
    bundles = _bundles(groups, importance, bounds, floor, multiple_of)

    def alive_after(num: int) -> Tensor:
        alive = groups.all_alive()
        for _, bundle in bundles[:num]:
            alive[bundle] = False
        return alive

    low, high = 0, len(bundles)
    if excess(groups, alive_after(high), dict(bounds)) > 0:
        reach = {kind: groups.cost.total(kind, alive_after(high)) for kind in bounds}
        asked = ", ".join(f"{kind} <= {bound:,.0f}" for kind, bound in bounds.items())
        raise BudgetError(
            f"the budget ({asked}) cannot be met: the smallest reachable is "
            + ", ".join(f"{kind} {cost:,}" for kind, cost in reach.items())
            + "; raise the budget, lower min_share or multiple_of, or see coverage() for what cannot be removed"
        )
    while low < high:
        middle = (low + high) // 2
        if excess(groups, alive_after(middle), dict(bounds)) > 0:
            low = middle + 1
        else:
            high = middle
    return ~_refilled(groups, bundles[:low], alive_after(low), dict(bounds))


def most(groups: ChannelGroups, importance: Tensor, floor: Mapping[str, int], multiple_of: int = 1) -> Tensor:
    """Return all groups that may go at once: bool [num_groups]; less than what is left no budget can ask for."""
    chosen = torch.zeros(len(groups), dtype=torch.bool)
    for _, bundle in _bundles(groups, importance, {}, floor, multiple_of):
        chosen[bundle] = True
    return chosen


def _refilled(
    groups: ChannelGroups, removed: list[tuple[int, Tensor]], alive: Tensor, bounds: dict[str, float]
) -> Tensor:
    """Return `alive` with those bundles that still fit under the bounds, the last removed first; within a layer none
    that is less important than one that does not fit, as the very last does not."""
    closed = {layer for layer, _ in removed[-1:]}
    for layer, bundle in reversed(removed[:-1]):
        if excess(groups, alive, bounds) > -SLACK:
            break
        if layer in closed:
            continue
        fuller = alive.clone()
        fuller[bundle] = True
        if excess(groups, fuller, bounds) <= 0:
            alive = fuller
        else:
            closed.add(layer)
    return alive


def _bundles(
    groups: ChannelGroups,
    importance: Tensor,
    bounds: Mapping[str, float],
    floor: Mapping[str, int],
    multiple_of: int,
) -> list[tuple[int, Tensor]]:
    """Return what may go and of which layer it is, in the order in which it goes."""
    saving = torch.zeros(len(groups), dtype=torch.float64)
    for kind, bound in bounds.items():
        saving += groups.cost.saving(kind, groups.all_alive()) / bound
    scored: list[tuple[float, int, int, Tensor]] = []
    kept = torch.zeros(len(groups), dtype=torch.bool)  # nothing is left with nothing
    for inside in wholes(groups):
        kept[inside[importance[inside].argmax()]] = True
    for layer, name in enumerate(groups.layer_names):
        lasting = kept if floor.get(name, 1) else ~groups.exact
        members = ((groups.layers == layer) & groups.exact & ~lasting).nonzero().flatten()
        order = members[importance[members].argsort(stable=True)]
        num = members.numel() + int((lasting & groups.exact & (groups.layers == layer)).sum())
        spare = min(members.numel(), num - floor.get(name, 1))
        first = num % multiple_of or multiple_of
        ends = range(first, spare + 1, multiple_of)
        best, start = 0.0, 0
        for end in ends:
            bundle = order[start:end]
            score = float(importance[bundle].sum() / saving[bundle].sum().clamp(min=1e-30))
            best, start = max(best, score), end
            scored.append((best, len(scored), layer, bundle))
    return [(layer, bundle) for _, _, layer, bundle in sorted(scored, key=lambda item: item[:2])]
