"""What is removed, and the plan that does it."""

import torch
from torch import Tensor, nn

from prunus.budget.greedy_selection import wholes
from prunus.graph import ChannelGroups
from prunus.penalties import producers
from prunus.surgery import Cut, Plan, RemoveChannels, SetAttribute


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
