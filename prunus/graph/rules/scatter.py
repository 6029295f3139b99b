"""Operators that put rows of one tensor into another: points pooled into cells, pillars laid onto a canvas."""

import torch

from prunus.graph.call import Call
from prunus.graph.labels import Axis, Label, Labels
from prunus.graph.rules.parts import index_as_wide
from prunus.graph.rules.table import rule, unknown


@rule("index_add", "index_copy")
def put_rows(call: Call) -> Label:
    """y[index[i]] = or += rows[i] along one dimension; along the others, the channels of both are joined."""
    (dim,) = call.dims()
    return _put(call, dim, call["index"], call.labels[2])


@rule("scatter_add")
def add_elements(call: Call) -> Label:
    """As `put_rows`, with an index that has all dimensions."""
    (dim,), rows = call.dims(), call["src"]
    for other in rows.axes.keys() - {dim}:
        index_as_wide(call, rows.axes[other], call["index"], other)
    return _put(call, dim, call["index"], rows)


@rule("index_put")
def put_at(call: Call) -> Labels:
    """y[:, index] = or += values, with one index of one dimension; other forms are refused."""
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
        like = into.axes.get(other) or rows.axes.get(other)
        sides = [call.as_wide(label, other, like) for label in (into, rows)]
        call.join(*sides)
        present = [axis for axis in sides if axis is not None]
        axes[other] = Axis(present[0].ids, torch.stack([axis.source for axis in present]).amax(0))
    return Label(into.shape, axes)
