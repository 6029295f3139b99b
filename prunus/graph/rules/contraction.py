"""Sums over products: linear layers, matrix products, embeddings."""

import numpy as np
import torch

from prunus.graph.call import Call
from prunus.graph.labels import Axis, Label, Labels
from prunus.graph.rules.convolution import shifted
from prunus.graph.rules.table import rule, unknown


@rule("linear")
def linear(call: Call) -> Labels:
    """y = x w^T + b; weight [out, in]."""
    value, weight, bias = call["input"], call["weight"], call["bias"]
    last = value.last
    if len(weight.shape) == 1:  # a sum of products with one row
        return unknown(call)
    out, inner = weight.axes.get(0), weight.axes.get(1)
    call.produce(value.axes.get(last))
    call.consume(inner)
    call.produce(out)
    call.contract(call.as_wide(value, last, inner), inner)
    out = shifted(call, out, bias)
    rest = {dim: axis if bias is None else call.changed(axis) for dim, axis in value.before(1).items()}
    free = [rest.get(dim, size) for dim, size in enumerate(value.shape[:-1])]
    call.cost(*free, out or weight.shape[0], inner or weight.shape[1])
    return Label(call.shapes[0], {**rest, **({last: out} if out is not None else {})})


@rule("matmul", "bmm", "mm", "mv")
def matmul(call: Call) -> Label:
    """c[..., n, m] = sum over k of a[..., n, k] b[..., k, m]; leading dimensions broadcast."""
    return product(call, *call.labels[:2])


@rule("baddbmm", "addmm")
def addmm(call: Call) -> Labels:
    """A matrix product plus a tensor that broadcasts to it."""
    added, first, second = call.labels[:3]
    result = product(call, first, second)
    offset = len(result.shape) - len(added.shape)
    own = {dim + offset: axis for dim, axis in added.axes.items()}
    for dim, axis in own.items():
        if dim not in result.axes:
            call.freeze(axis, "meets data of a fixed size")
    axes = {}
    for dim, axis in result.axes.items():
        if dim >= offset and added.shape[dim - offset] > 1:
            call.join(axis, own.get(dim))
        call.produce(own.get(dim))
        axes[dim] = Axis(axis.ids, torch.maximum(axis.source, own[dim].source)) if dim in own else call.changed(axis)
    return Label(result.shape, axes)


def product(call: Call, first: Label, second: Label) -> Label:
    """The matrix product of two labels."""
    a, b = _matrix(first, front=True), _matrix(second, front=False)
    n, k, m = a.last - 1, a.last, b.last
    left, right = a.axes.get(k), b.axes.get(m - 1)
    call.consume(right)
    for axis in (a.axes.get(n), left, b.axes.get(m)):
        call.produce(axis)
    call.contract(left, right)
    if len(first.shape) > 2 and len(second.shape) > 2:
        call.attend(a.axes.get(n), left, right, b.axes.get(m))
    shape = (*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[n], b.shape[m])
    axes = {}
    for dim in range(len(shape) - 2):
        behind = dim - len(shape)
        pair = [(label.behind(behind), (1, *label.shape)[max(behind, -len(label.shape) - 1)]) for label in (a, b)]
        sized = [axis for axis, size in pair if size > 1 or axis is not None]
        if len(sized) == 2:
            call.join(*sized)
        present = [axis for axis in sized if axis is not None]
        if present:
            axes[dim] = Axis(present[0].ids, torch.stack([axis.source for axis in present]).amin(0))
    axes |= {len(shape) - 2: a.axes[n]} if n in a.axes else {}
    axes |= {len(shape) - 1: b.axes[m]} if m in b.axes else {}
    call.cost(*(axes.get(dim, size) for dim, size in enumerate(shape)), left or a.shape[k])
    vectors = {len(shape) - 2: len(first.shape) == 1, len(shape) - 1: len(second.shape) == 1}
    kept = [dim for dim in range(len(shape)) if not vectors.get(dim)]
    return Label(call.shapes[0], {new: axes[old] for new, old in enumerate(kept) if old in axes})


def _matrix(label: Label, *, front: bool) -> Label:
    if len(label.shape) > 1:
        return label
    if front:
        return Label((1, *label.shape), {dim + 1: axis for dim, axis in label.axes.items()})
    return Label((*label.shape, 1), label.axes)


@rule("embedding")
def embedding(call: Call) -> Label:
    """Rows of a table [entries, size], picked by numbers: the entries are fixed, the size is a channel axis.

    Channels of the numbers are those of the rows, which are not zero where the numbers are.
    """
    table, numbers = call["weight"], call["indices"]
    call.freeze(table.axes.get(0), "entries of a table")
    call.produce(table.axes.get(1))
    axes = {dim: call.changed(axis) for dim, axis in numbers.axes.items()}
    return Label(call.shapes[0], axes | ({len(numbers.shape): table.axes[1]} if 1 in table.axes else {}))
