"""`groups.coverage()`: which channels of a network can be removed exactly, approximately, or not at all, and why."""

from collections.abc import Sequence

import torch
from torch import Tensor

from prunus.graph.cost import CostModel
from prunus.graph.slots import Reason, Slot
from prunus.records.coverage import Coverage, LayerCoverage


def coverage(
    units: Sequence[Slot],
    exact: Tensor,
    removable: Tensor,
    told: Sequence[Reason],
    cost: CostModel,
    notes: tuple[str, ...],
) -> Coverage:
    """Return which channels of a network can be removed, layer by layer.

    `units` holds one slot per layer, with the layer's units as indices; `exact` and `removable` are bool [num_groups];
    `told` are the reasons for other groups."""
    exact, removable = (torch.cat([mask, torch.tensor([False])]) for mask in (exact, removable))
    reason_of = _main_reasons(told, exact.numel())
    rows: dict[str, LayerCoverage] = {}
    for slot in units:
        inside = slot.groups
        num_exact, num_removable = int(exact[inside].sum()), int(removable[inside].sum())
        rows[slot.layer] = LayerCoverage(
            layer=slot.layer,
            channels=inside.numel(),
            exact=num_exact,
            approximate=num_removable - num_exact,
            refused=inside.numel() - num_removable,
            reason=_most_frequent(reason_of[inside[~exact[inside]]], told),
        )
    totals = {kind: cost.total(kind, torch.ones_like(exact)) for kind in ("params", "macs")}
    shares = {  # the share of each cost that depends on at least one channel of these groups
        f"{name}_{kind}": 1 - cost.total(kind, ~mask) / totals[kind] if totals[kind] else 0.0
        for name, mask in (("exact", exact), ("removable", removable))
        for kind in ("params", "macs")
    }
    return Coverage(rows=tuple(rows.values()), notes=notes, **shares)


def _main_reasons(told: Sequence[Reason], size: int) -> Tensor:
    """Return the number of each group's main reason, -1 where it has none: refusals before approximations, then the
    reason that holds for the most groups."""
    found = torch.full((size,), -1)
    for number in sorted(range(len(told)), key=lambda i: (told[i].refused, told[i].groups.numel())):
        found[told[number].groups] = number
    return found


def _most_frequent(numbers: Tensor, told: Sequence[Reason]) -> str:
    known = numbers[numbers >= 0]
    if not known.numel():
        return "no operator mixes its channels" if numbers.numel() else ""
    return told[int(torch.mode(known).values)].text
