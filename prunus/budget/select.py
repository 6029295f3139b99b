"""`prunus.select`: decide which channel groups go, and write it down as a plan."""

import torch
from torch import Tensor, nn

from prunus.budget.budget import Budget
from prunus.budget.victims import floors, victims, wholes
from prunus.errors import BudgetError
from prunus.graph import ChannelGroups
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
    for inside in wholes(groups):
        if bool(spared[inside].all()):
            spared[inside[0]] = False
    return spared


def relative_norms(model: nn.Module, groups: ChannelGroups) -> Tensor:
    """Return each group's norm over the mean norm in its layer, [num_groups]: layers become comparable."""
    norms = GroupSlices.of(model, groups).norms().detach().cpu().double()
    index = groups.layers % (len(groups.layer_names) + 1)
    total = torch.zeros(len(groups.layer_names) + 1, dtype=torch.float64).index_add_(0, index, norms)
    count = torch.zeros_like(total).index_add_(0, index, torch.ones_like(norms))
    return norms / (total / count.clamp(min=1))[index].clamp(min=1e-30)


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
