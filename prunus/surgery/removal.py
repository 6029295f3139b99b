"""The plan that removes the channel groups chosen, and which of them are spared so that no layer is left empty."""

from collections.abc import Iterator

import torch
from torch import Tensor

from prunus.graph import ChannelGroups
from prunus.surgery.plan import Plan
from prunus.surgery.remove import Cut, RemoveChannels, SetAttribute


def spare_layers(groups: ChannelGroups, chosen: Tensor) -> Tensor:
    """Return `chosen` without one group of each dimension that would otherwise become empty."""
    spared = chosen.clone()
    for inside in whole_dimensions(groups):
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


def whole_dimensions(groups: ChannelGroups) -> Iterator[Tensor]:
    """Yield the groups of each tensor's dimension, and of each size kept as an attribute, made of groups alone."""
    for inside in (*(slot.groups for slot in groups.slots), *(one.groups for one in groups.attributes)):
        if inside.numel() and bool((inside >= 0).all()):
            yield inside
