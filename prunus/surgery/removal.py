"""The plan that removes chosen channel groups, and the choice of spared groups so that no layer becomes empty."""

import collections
import dataclasses
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from prunus.graph import ChannelGroups
from prunus.graph.slots import Attribute, Slot
from prunus.surgery.plan import Plan
from prunus.surgery.remove import RemoveChannels
from prunus.surgery.set_attribute import Cut, SetAttribute

MOST_NAMED = 8  # numbers named in the note on those that did not follow


def spare_layers(groups: ChannelGroups, chosen: Tensor) -> Tensor:
    """Return `chosen` without one group of each dimension that would otherwise become empty."""
    spared = chosen.clone()
    for inside in whole_dimensions(groups):
        if bool(spared[inside].all()):
            spared[inside[0]] = False
    return spared


def removal(groups: ChannelGroups, chosen: Tensor) -> Plan:
    """Return the plan that removes the groups `chosen`, bool [num_groups]; it is empty where none is chosen."""
    padded = torch.cat([chosen, chosen.new_zeros(1)])
    cuts = []
    for slot in groups.slots:
        gone = padded[slot.groups].nonzero().flatten()
        if gone.numel():
            cuts.append(Cut(path=slot.path, dim=slot.dim, size=slot.groups.numel(), remove=tuple(gone.tolist())))
    followed, notes = list(groups.attributes), list[str]()
    for width in groups.noted:
        before, after = width.groups[0].numel(), {int((~padded[inside]).sum()) for inside in width.groups}
        if width.is_width and len(after) == 1:
            followed.append(Attribute(width.path, width.name, -1, width.groups[0]))
        elif after != {before}:
            notes.append(f"{width} {before} (now {' or '.join(map(str, sorted(after)))})")
    attributes = [_set(one, groups, cuts, padded) for one in followed if bool(padded[one.groups].any())]
    edits = (RemoveChannels(cuts=tuple(cuts), attributes=tuple(attributes)),) if cuts else ()
    return Plan(edits, notes=_not_followed(notes))


def _set(one: Attribute, groups: ChannelGroups, cuts: Sequence[Cut], gone: Tensor) -> SetAttribute:
    """Return the change of an attribute without the groups `gone`, bool [num_groups + 1]."""
    before, lost = one.groups.numel(), one.groups[gone[one.groups]]
    new = SetAttribute(path=one.path, name=one.name, item=one.item, before=before, after=before - lost.numel())
    return new if new.follows(cuts) else dataclasses.replace(new, taken=_taken(groups, lost))


def _not_followed(noted: Sequence[str]) -> tuple[str, ...]:
    if not noted:
        return ()
    more = f" and {len(noted) - MOST_NAMED} more" if len(noted) > MOST_NAMED else ""
    return (
        f"not followed, since no code reads them and they may count one or another: {', '.join(noted[:MOST_NAMED])}"
        f"{more}. What relies on them (a new head, a configuration that save_pretrained writes, an average of weights) "
        "may not fit: set them by hand; prunus.save writes what prunus.load builds",
    )


def _taken(groups: ChannelGroups, gone: Tensor) -> tuple[Cut, ...]:
    """Return cuts that remove the groups `gone`, int [n], at each group's first place: one per occurrence in `gone`."""
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
    """Yield the groups of each tensor dimension, and of each attribute, whose indices all belong to groups."""
    for inside in (*(slot.groups for slot in groups.slots), *(one.groups for one in groups.attributes)):
        if inside.numel() and bool((inside >= 0).all()):
            yield inside
