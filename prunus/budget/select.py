"""`prunus.select`: decide which channel groups go, and write it down as a plan."""

from collections.abc import Collection, Iterator, Mapping

import torch
from torch import Tensor, nn

from prunus.budget.budget import Budget, excess, layer_sizes
from prunus.errors import BudgetError
from prunus.graph import ChannelGroups, Role
from prunus.penalties import GroupSlices, producers
from prunus.surgery import Cut, Plan, RemoveChannels, SetAttribute


def select(
    model: nn.Module, groups: ChannelGroups, *, budget: Budget | None = None, importance: Tensor | None = None
) -> Plan:
    """Return the plan that removes channel groups of `model`.

    Without a budget: exactly the groups that are zero, whose removal is exact. With one: the least important groups
    per cost saved (`victims`) until the budget holds; that changes the function unless they are zero.

    Args:
        model: the network, as traced.
        groups: `prunus.trace` of it.
        budget: what the network may cost.
        importance: [num_groups]; default `relative_norms`.

    Raises:
        BudgetError: nothing in this network can be removed, or the budget cannot be met (the smallest reachable
            cost is named).
    """
    if not isinstance(model, nn.Module) or not isinstance(groups, ChannelGroups):
        raise BudgetError(
            f"select takes the model and the groups that trace gave, not a {type(model).__name__} and a "
            f"{type(groups).__name__}"
        )
    if not isinstance(budget, Budget | None):
        raise BudgetError(f"select takes a Budget, as in budget=prunus.Budget(macs=0.4), not {budget!r:.80}")
    refuse_if_rigid(groups)
    if budget is None:
        return removal(groups, spare_layers(groups, zero_groups(model, groups)))
    bounds = budget.absolute(groups)
    values = relative_norms(model, groups) if importance is None else importance.detach().cpu().double()
    if values.shape != (len(groups),) or not bool(values.isfinite().all()):
        raise BudgetError(
            f"importance has shape {list(values.shape)}; one finite number a group is needed, [{len(groups)}]"
            + ("" if importance is not None else ": the network's own norms are not finite")
        )
    return removal(groups, victims(groups, values, bounds, floors(groups, budget), budget.multiple_of))


def refuse_if_rigid(groups: ChannelGroups) -> None:
    """Raise `BudgetError` with the reasons where no group can be removed exactly."""
    if not bool(groups.exact.any()):
        counted: dict[str, int] = {}
        for texts in groups.reasons.values():
            counted[texts[0]] = counted.get(texts[0], 0) + 1
        reasons = sorted(counted.items(), key=lambda item: -item[1])[:5]
        listed = "; ".join(f"{number} groups: {reason}" for reason, number in reasons) or "it has no channel groups"
        raise BudgetError(f"nothing in this network can be removed exactly: {listed}")


@torch.no_grad()
def zero_groups(model: nn.Module, groups: ChannelGroups) -> Tensor:
    """Return which groups have only zeros in all that makes their channels, bool [num_groups]."""
    alive = torch.zeros(len(groups) + 1)
    for slot, tensor in producers(model, groups):
        values = tensor.detach()
        others = [d for d in range(values.dim()) if d != slot.dim]
        if others and values.numel():  # much faster than `any`; not a number is not zero either
            rows = (values.amax(others) != 0) | (values.amin(others) != 0)
        else:
            rows = (values != 0).any(dim=others) if others else values != 0
        alive.index_add_(0, slot.groups % alive.numel(), rows.float().cpu())
    return (alive[:-1] == 0) & groups.exact


def spare_layers(groups: ChannelGroups, chosen: Tensor) -> Tensor:
    """Return `chosen` without one group of all that would be left with nothing."""
    spared = chosen.clone()
    for inside in _wholes(groups):
        if bool(spared[inside].all()):
            spared[inside[0]] = False
    return spared


def _wholes(groups: ChannelGroups) -> Iterator[Tensor]:
    """Yield the groups of each tensor's dimension, and of each size kept as an attribute, that holds nothing else."""
    for inside in (*(slot.groups for slot in groups.slots), *(one.groups for one in groups.attributes)):
        if inside.numel() and bool((inside >= 0).all()):
            yield inside


def relative_norms(model: nn.Module, groups: ChannelGroups) -> Tensor:
    """Return each group's norm over the mean norm in its layer, [num_groups]: layers become comparable."""
    norms = GroupSlices.of(model, groups).norms().detach().cpu().double()
    index = groups.layers % (len(groups.layer_names) + 1)
    total = torch.zeros(len(groups.layer_names) + 1, dtype=torch.float64).index_add_(0, index, norms)
    count = torch.zeros_like(total).index_add_(0, index, torch.ones_like(norms))
    return norms / (total / count.clamp(min=1))[index].clamp(min=1e-30)


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
    finds the fewest bundles that suffice.

    Raises:
        BudgetError: the bounds cannot be met.
    """
    bundles = _bundles(groups, importance, bounds, floor, multiple_of)

    def alive_after(num: int) -> Tensor:
        alive = groups.all_alive()
        for bundle in bundles[:num]:
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
    return ~alive_after(low)


def _bundles(
    groups: ChannelGroups,
    importance: Tensor,
    bounds: Mapping[str, float],
    floor: Mapping[str, int],
    multiple_of: int,
) -> list[Tensor]:
    """Return what may go, in the order in which it goes."""
    saving = torch.zeros(len(groups), dtype=torch.float64)
    for kind, bound in bounds.items():
        saving += groups.cost.saving(kind, groups.all_alive()) / bound
    scored: list[tuple[float, int, Tensor]] = []
    kept = torch.zeros(len(groups), dtype=torch.bool)  # nothing is left with nothing
    for inside in _wholes(groups):
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
            scored.append((best, len(scored), bundle))
    return [bundle for _, _, bundle in sorted(scored, key=lambda item: item[:2])]


def removal(groups: ChannelGroups, chosen: Tensor) -> Plan:
    """Return the plan that removes the groups `chosen`, bool [num_groups]; an empty one where none is."""
    padded = torch.cat([chosen, chosen.new_zeros(1)])
    cuts = []
    for slot in groups.slots:
        gone = padded[slot.groups].nonzero().flatten()
        if gone.numel():
            cuts.append(Cut(path=slot.path, dim=slot.dim, size=slot.groups.numel(), remove=tuple(gone.tolist())))
    attributes = tuple(
        SetAttribute(path=one.path, name=one.name, item=one.item, before=one.groups.numel(), after=int(left))
        for one in groups.attributes
        if (left := (~padded[one.groups]).sum()) < one.groups.numel()
    )
    return Plan((RemoveChannels(cuts=tuple(cuts), attributes=attributes),)) if cuts else Plan()
