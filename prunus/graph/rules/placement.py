"""Placement: the one dimension along which channels lie after an operator has moved data."""

import torch
from torch import Tensor

from prunus.graph.call import Call
from prunus.graph.labels import Axis, num_distinct
from prunus.modules.strides import varying_dims


def place(call: Call, ids: Tensor, source: Tensor, axes: dict[int, Axis], first: int = 0) -> None:
    """Find the one dimension along which labels of the full shape lie, and put their channels into `axes`.

    Labels that change along several dimensions (heads x head size, pixel-shuffled positions, concatenated tokens) can
    only be cut evenly: one dimension is cut, and the channels are coupled across the others. It is the dimension with
    the most channels, the last of equals; where whole heads are to be removed, the one with the second most. The choice
    is made once for all widths, since at a narrower width a dimension may be down to one channel and no longer vary.
    `first` is the dimension of the output at which the labels begin.
    """
    compact, varying = varying_dims(ids)
    known = call.findings.places.setdefault((call.number, first), {})
    if not varying and not known:
        known[()] = -1  # nothing varies at another width either
    if not ids.numel() or not (varying or (() not in known and bool(compact.any()))):
        call.freeze(compact.reshape(-1)[:1], "a channel is picked at a fixed position")
        return
    dim = next((dim for dims, dim in known.items() if dims and set(varying) <= set(dims)), -1)
    if dim < 0:
        dim = known[tuple(varying)] = _preferred(compact, varying, call.findings.whole)
    size = ids.shape[dim]
    # One row per position in all other dimensions: channels in one column are removed together.
    rows = compact.movedim(dim, -1).reshape(-1, compact.shape[dim]).expand(-1, size)
    call.couple(rows)
    worst = source
    for other in reversed(range(source.dim())):
        if other != dim:
            worst = worst.narrow(other, 0, 1) if source.stride(other) == 0 else worst.amax(other, keepdim=True)
    put(call, axes, first + dim, Axis(rows[0].clone(), worst.reshape(-1).expand(size).clone()))


def _preferred(labels: Tensor, varying: list[int], whole: Tensor | None) -> int:
    """Return the dimension to cut; not the dimension inside heads whose channels stay `whole`, bool [num_ids]."""
    ordered = sorted(varying, key=lambda d: (num_distinct(labels, d), d))
    line = labels.movedim(ordered[-1], 0).reshape(labels.shape[ordered[-1]], -1)[:, 0]
    return ordered[-2] if len(ordered) > 1 and whole is not None and bool(whole[line].any()) else ordered[-1]


def put(call: Call, axes: dict[int, Axis], dim: int, axis: Axis) -> None:
    """Put `axis` into `axes` at `dim`. Where two channel dimensions become one, keep the one with more channels and
    refuse the other; the choice is made once for all widths."""
    if dim in axes:
        other = axes[dim]
        counts = [torch.unique(each.ids).numel() for each in (other, axis)]
        if call.findings.finer.setdefault((call.number, dim), counts[0] >= counts[1]):
            axis, other = other, axis
        call.freeze(other, "two channel dimensions become one")
    axes[dim] = axis
