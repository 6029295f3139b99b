"""The plan that removes the channel groups chosen, and which of them are spared so that no layer is left empty."""

import collections
import dataclasses
from collections.abc import Iterator

import torch
from torch import Tensor

from prunus.graph import ChannelGroups
from prunus.graph.slots import Slot
from prunus.surgery.plan import Plan
from prunus.surgery.remove import RemoveChannels
from prunus.surgery.set_attribute import Cut, SetAttribute


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
    attributes = []
    for one in groups.attributes:
        gone = one.groups[padded[one.groups]]
        if gone.numel():
            before = one.groups.numel()
            new = SetAttribute(path=one.path, name=one.name, item=one.item, before=before, after=before - gone.numel())
            followed = new.follows(cuts)
            attributes.append(new if followed else dataclasses.replace(new, taken=_taken(groups, gone)))
    return Plan((RemoveChannels(cuts=tuple(cuts), attributes=tuple(attributes)),)) if cuts else Plan()


def _taken(groups: ChannelGroups, gone: Tensor) -> tuple[Cut, ...]:
    """Return the cuts that hold the groups `gone`, int [n], each at its first place, as often as it stands there."""
    places = dict[int, tuple[Slot, int]]()
    for slot in groups.slots:
        for index, group in enumerate(slot.groups.tolist()):
            places.setdefault(group, (slot, index))
    times, found = collections.Counter[int](), dict[tuple[int, str, int], tuple[Slot, list[int]]]()
    for group in gone.tolist():
        slot, index = places[group]
        found.setdefault((times[group], slot.path, slot.dim), (slot, []))[1].append(index)
        times[group] += 1
    return tuple(
        Cut(path=slot.path, dim=slot.dim, size=slot.groups.numel(), remove=tuple(sorted(indices)))
        for slot, indices in found.values()
    )


def whole_dimensions(groups: ChannelGroups) -> Iterator[Tensor]:
    """Yield the groups of each tensor's dimension, and of each size kept as an attribute, made of groups alone."""
    for inside in (*(slot.groups for slot in groups.slots), *(one.groups for one in groups.attributes)):
        if inside.numel() and bool((inside >= 0).all()):
            yield inside
