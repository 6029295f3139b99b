"""Greedy selection: which channel groups to remove to fit a budget, the least important per cost saved first."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from prunus.budget.budget import Budget, excess, layer_sizes, out_of_reach
from prunus.budget.choices import exact_members, most_important, removal_order, steps
from prunus.budget.running_cost import RunningCost
from prunus.graph import ChannelGroups, Role
from prunus.penalties.keep import kept_groups

SLACK = 0.01  # share of a bound: where more than this is unused, groups that still fit are restored

Bundle = tuple[int, Tensor]  # the layer, and the groups of it that are removed together


def floors(groups: ChannelGroups, budget: Budget, skippable: Collection[str] = ()) -> dict[str, int]:
    """Return the least number of groups that each layer keeps under `budget`.

    The floor is `min_share` of the layer, but at least two, since a single channel leaves no choice. Only the layers
    `skippable` may go below two, except where another layer produces channels of the same groups, as on a skip
    connection: its channels would vanish too. A layer matched by `budget.keep`, or one that produces channels for it,
    keeps them all.

    Raises:
        RecipeError: a pattern of `budget.keep` that matches no layer.
    """
    whole = set(groups.layers[kept_groups(groups, budget.keep)].tolist())
    kept = {groups.layer_names[layer] for layer in whole if layer >= 0}
    may_vanish = set(skippable) - _layers_with_shared_channels(groups)
    return {
        name: size if name in kept else max(0 if name in may_vanish else min(2, size), round(size * budget.min_share))
        for name, size in layer_sizes(groups).items()
    }


def _layers_with_shared_channels(groups: ChannelGroups) -> set[str]:
    """Return the layers with a channel that a kernel or matrix of another layer produces too."""
    kernels = {slot.layer for slot in groups.slots if slot.dim > 0}
    makers = defaultdict[str, list[Tensor]](list)
    for slot in groups.slots:
        if slot.role is Role.PRODUCER and slot.layer in kernels:
            makers[slot.layer].append(slot.groups)
    counts = torch.zeros(len(groups) + 1, dtype=torch.long)
    for parts in makers.values():
        counts[torch.unique(torch.cat(parts))] += 1  # index -1, no group, is the last
    shared = torch.unique(groups.layers[counts[:-1] > 1]).tolist()
    return {groups.layer_names[number] for number in shared if number >= 0}


def greedy_selection(
    groups: ChannelGroups,
    importance: Tensor,
    bounds: Mapping[str, float],
    floor: Mapping[str, int],
    multiple_of: int = 1,
) -> Tensor:
    """Return the groups to remove so that the cost just fits `bounds`: bool [num_groups].

    Groups are removed in ascending order of importance / cost saved; within a layer the less important ones go first,
    in bundles that leave a multiple of `multiple_of`; each layer keeps its floor. The cost falls with each bundle, so
    bisection finds the fewest bundles that suffice. Where the last bundle removes much more than necessary, others
    are restored, the more important ones first. Time and memory are linear in the sizes of all dimensions.

    Args:
        groups: `prunus.trace` of the network.
        importance: [num_groups].
        bounds: on "macs" and "params".
        floor: groups that each layer keeps, by name; see `floors`.
        multiple_of: each layer keeps a multiple of this.

    Raises:
        BudgetError: the bounds cannot be met; names the smallest cost that can be reached.
    """
    bundles = _bundles(groups, importance, bounds, floor, multiple_of)
    order = torch.cat([bundle for _, bundle in bundles] or [torch.zeros(0, dtype=torch.long)])
    ends = [0, *torch.tensor([bundle.numel() for _, bundle in bundles], dtype=torch.long).cumsum(0).tolist()]

    def alive_after(num: int) -> Tensor:
        alive = groups.all_alive()
        alive[order[: ends[num]]] = False
        return alive

    low, high = 0, len(bundles)
    if excess(groups, alive_after(high), bounds) > 0:
        raise out_of_reach(groups, alive_after(high), bounds)
    while low < high:
        middle = (low + high) // 2
        if excess(groups, alive_after(middle), bounds) > 0:
            low = middle + 1
        else:
            high = middle
    return ~_restored(groups, bundles[:low], alive_after(low), bounds)


def all_removable(groups: ChannelGroups, importance: Tensor, floor: Mapping[str, int], multiple_of: int = 1) -> Tensor:
    """Return all groups that can be removed at once, bool [num_groups]; no budget can go below the remaining cost."""
    chosen = torch.zeros(len(groups), dtype=torch.bool)
    for _, bundle in _bundles(groups, importance, {}, floor, multiple_of):
        chosen[bundle] = True
    return chosen


def _restored(groups: ChannelGroups, removed: Sequence[Bundle], alive: Tensor, bounds: Mapping[str, float]) -> Tensor:
    """Return `alive`, bool [num_groups], with the bundles of `removed` restored that still fit `bounds`."""
    if not removed or excess(groups, alive, bounds) > -SLACK:
        return alive
    alive, cost = alive.clone(), RunningCost(groups, alive, bounds)
    # A layer's bundles come in ascending importance, so going backwards tries its most important one first. Once one
    # does not fit, the layer is closed: a less important bundle must not return before a more important one. Bisection
    # found the very last bundle necessary, so its layer is closed from the start. Each bundle is tried at most once, so
    # the time is linear.
    closed = {removed[-1][0]}
    for layer, bundle in reversed(removed[:-1]):
        if layer in closed:
            continue
        cost.restore(bundle)
        if cost.excess() <= 0:
            alive[bundle] = True
            if cost.excess() > -SLACK:
                break
        else:
            cost.remove(bundle)
            closed.add(layer)
    return alive


def _bundles(
    groups: ChannelGroups,
    importance: Tensor,
    bounds: Mapping[str, float],
    floor: Mapping[str, int],
    multiple_of: int,
) -> list[Bundle]:
    """Return the removable groups as bundles, in the order of removal."""
    saving = torch.zeros(len(groups), dtype=torch.float64)
    for kind, bound in bounds.items():
        saving += groups.cost.saving(kind, groups.all_alive()) / bound
    kept = most_important(groups, importance)
    scored: list[tuple[float, int, Bundle]] = []
    for layer, members in enumerate(exact_members(groups)):
        order = removal_order(members, importance, kept, floor.get(groups.layer_names[layer], 1))
        # The first bundle brings the width to a multiple, each later one removes `multiple_of` channels.
        best, start = 0.0, 0
        for end in steps(members.numel(), order.numel(), multiple_of):
            bundle = order[start:end]
            score = float(importance[bundle].sum() / saving[bundle].sum().clamp(min=1e-30))
            best, start = max(best, score), end  # not before the less important bundles of its layer
            scored.append((best, len(scored), (layer, bundle)))
    return [bundle for _, _, bundle in sorted(scored, key=lambda item: item[:2])]
