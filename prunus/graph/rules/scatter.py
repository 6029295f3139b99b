"""Operators that put rows of one tensor into another: points pooled into cells, pillars laid onto a canvas."""

import torch
from torch import Tensor

from prunus.graph.call import Call
from prunus.graph.labels import Axis, Label, Labels
from prunus.graph.rules.parts import as_wide
from prunus.graph.rules.table import rule, unknown


@rule("index_add", "index_copy", "scatter_add")
def put_rows(call: Call) -> Label:
    """y[index[i]] = or += rows[i] along one dimension; along the others channels meet their like."""
    into, dim, index = (call[name] for name in ("input", "dim", "index"))
    rows = call.labels[2]
    if call.name == "aten::scatter_add":  # an index has all dimensions
        for other in rows.axes.keys() - {dim % len(into.shape)}:
            as_wide(call, rows.axes[other], index, other)
    return _put(call, dim % len(into.shape), index, rows)


@rule("index_put")
def put_at(call: Call) -> Labels:
    """y[:, index] = or += values, with one index of one dimension; others are refused."""
    into, indices, values = (call[name] for name in ("input", "indices", "values"))
    used = [(dim, index) for dim, index in enumerate(indices) if index is not None]
    plain = len(used) == 1 and len(used[0][1].shape) == 1 and len(values.shape) == len(into.shape)
    if not plain:
        return unknown(call)
    return _put(call, *used[0], values)


def _put(call: Call, dim: int, index: Label, rows: Label) -> Label:
    into = call.input
    for axis in (into.axes.get(dim), rows.axes.get(dim), *index.axes.values()):
        if axis is not None:
            call.freeze(axis, f"{call.name} puts rows at positions along it")
    axes = {}
    for other in sorted((into.axes.keys() | rows.axes.keys()) - {dim}):
        first, second = into.axes.get(other), rows.axes.get(other)
        present = first or second
        assert present is not None
        lacking = next((label for label in (into, rows) if other not in label.axes), None)
        if lacking is not None and lacking.uniform(other):  # made as wide as the channels
            call.hard_coded(present, follows=False)
        else:
            call.join(first, second)
        sources = [_source(call, label, other, present.ids) for label in (into, rows)]
        axes[other] = Axis(present.ids, torch.maximum(*sources))
    return Label(into.shape, axes)


def _source(call: Call, label: Label, dim: int, ids: Tensor) -> Tensor:
    """Return 0 where a tensor is zero once the channels are, else the node that says that it is not."""
    if dim in label.axes:
        return label.axes[dim].source
    zero = label.data is not None and not bool(label.data.any())
    return torch.full_like(ids, 0 if zero else call.number)
