"""The plan that removes the channel groups chosen, and which of them are spared so that no layer is left empty."""

from collections.abc import Iterator

import torch
from torch import Tensor

from prunus.graph import ChannelGroups
from prunus.surgery.plan import Plan
from prunus.surgery.remove import Cut, RemoveChannels, SetAttribute

MOST_NAMED = 8


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
    attributes = [
        SetAttribute(path=one.path, name=one.name, item=one.item, before=one.groups.numel(), after=int(left))
        for one in groups.attributes
        if (left := (~padded[one.groups]).sum()) < one.groups.numel()
    ]
    notes = list[str]()
    for one in groups.noted:
        before, after = one.groups[0].numel(), {int((~padded[inside]).sum()) for inside in one.groups}
        if one.is_width and len(after) == 1 and after != {before}:
            attributes.append(SetAttribute(path=one.path, name=one.name, before=before, after=after.pop()))
        elif after != {before}:
            notes.append(f"{one} {before} (now {' or '.join(map(str, sorted(after)))})")
    edits = (RemoveChannels(cuts=tuple(cuts), attributes=tuple(attributes)),) if cuts else ()
    return Plan(edits, notes=_not_followed(notes))


def _not_followed(noted: list[str]) -> tuple[str, ...]:
    if not noted:
        return ()
    more = f" and {len(noted) - MOST_NAMED} more" if len(noted) > MOST_NAMED else ""
    return (
        f"not followed, since no code reads them and they may count one or another: {', '.join(noted[:MOST_NAMED])}"
        f"{more}. What is built from these numbers (a new head, a configuration that save_pretrained writes) may not "
        "fit: set them by hand; prunus.save writes what prunus.load builds",
    )


def whole_dimensions(groups: ChannelGroups) -> Iterator[Tensor]:
    """Yield the groups of each tensor's dimension, and of each size kept as an attribute, made of groups alone."""
    for inside in (*(slot.groups for slot in groups.slots), *(one.groups for one in groups.attributes)):
        if inside.numel() and bool((inside >= 0).all()):
            yield inside
