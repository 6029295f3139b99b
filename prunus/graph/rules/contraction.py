"""Sums over products: convolutions, linear layers, matrix products, embeddings."""

import math
from typing import Any

import numpy as np
import torch

from prunus.graph.call import Call
from prunus.graph.labels import Axis, Label
from prunus.graph.rules.table import rule, unknown


@rule("conv1d", "conv2d", "conv3d", "convolution")
def conv(call: Call) -> Label:
    """y[o] = sum over i, k of w[o, i, k] x[i, k] + b[o]; weight [out, in / groups, *kernel]."""
    if call.name == "aten::convolution" and call.arg(6, "transposed", False):
        return _transposed(call, call.arg(8, "groups", 1))
    return _direct(call, call.arg(8 if call.name == "aten::convolution" else 6, "groups", 1))


@rule("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def conv_transpose(call: Call) -> Label:
    """A transposed convolution; weight [in, out / groups, *kernel]."""
    return _transposed(call, call.arg(6, "groups", 1))


def _direct(call: Call, groups: int) -> Label:
    image, weight = call.args[0], call.args[1]
    channels, out, inner = _channels(call, image), weight.axes.get(0), weight.axes.get(1)
    call.produce(channels)
    call.consume(inner)
    if groups == 1:
        call.contract(channels, inner)
    elif weight.shape[1] == 1:
        _join_depthwise(call, channels, out, groups)
        if channels is not None:
            call.written(channels)
        out = _product(out, channels, groups)
    else:
        call.contract(channels, _repeated(inner, groups))
        if out is not None:
            call.couple(out.ids.reshape(groups, -1))
    return _output(call, out, call.shapes[0])


def _transposed(call: Call, groups: int) -> Label:
    image, weight = call.args[0], call.args[1]
    channels, inner, out = _channels(call, image), weight.axes.get(0), weight.axes.get(1)
    call.produce(channels)
    if groups > 1 and weight.shape[1] == 1 and weight.shape[0] == groups:
        call.join(channels, inner)
        if channels is not None:
            call.written(channels)
        return _output(call, _product(inner, channels, groups), image.shape)
    call.consume(inner)
    call.contract(channels, inner)
    if groups > 1 and inner is not None:
        call.couple(inner.ids.reshape(groups, -1))
    return _output(call, _repeated(out, groups), image.shape)


def _output(call: Call, out: Axis | None, slid: tuple[int, ...]) -> Label:
    """Join the bias, count the multiply-adds (the kernel meets each position of `slid` once), label the output."""
    weight, bias, shape = call.args[1], call.arg(2, "bias"), call.shapes[0]
    call.findings.positions.extend(axis.ids for axis_dim, axis in weight.axes.items() if axis_dim > 1)
    dim = len(shape) - len(weight.shape) + 1
    call.produce(out)
    out = _shifted(call, out, bias)
    fixed = math.prod(shape[:dim]) * math.prod(slid[dim + 1 :]) * math.prod(weight.shape[2:])
    call.cost(fixed, *(weight.axes.get(d, weight.shape[d]) for d in (0, 1)))
    return Label(shape, {dim: out} if out is not None else {})


def _shifted(call: Call, out: Axis | None, bias: Label | None) -> Axis | None:
    """Join a bias: the sum is zero where both are."""
    if bias is None:
        return out
    axis = bias.axes.get(0)
    call.join(out, axis)
    call.produce(axis)
    return out and Axis(out.ids, torch.maximum(out.source, axis.source) if axis is not None else out.source)


def _product(out: Axis | None, channels: Axis | None, groups: int) -> Axis | None:
    """Each output reads one input: it is zero where its weight or that input is."""
    if out is None or channels is None:
        return out
    source = channels.source.repeat_interleave(out.ids.numel() // groups)
    return Axis(out.ids, torch.where(source == 0, 0, out.source))


def _repeated(axis: Axis | None, groups: int) -> Axis | None:
    """Column i of a grouped weight stands for channel i of every group: they go together."""
    return axis and Axis(axis.ids.repeat(groups), axis.source.repeat(groups))


def _channels(call: Call, image: Label) -> Axis | None:
    """Return the channels of [N, C, *positions] or [C, *positions]; refuse channels at any other dimension."""
    dim = len(image.shape) - len(call.args[1].shape) + 1
    for other, axis in image.axes.items():
        if other != dim:
            call.freeze(axis, "channels lie along a dimension that the kernel slides over")
    return image.axes.get(dim)


def _join_depthwise(call: Call, channels: Axis | None, out: Axis | None, groups: int) -> None:
    """Output j * m + i reads input j alone: they are one channel."""
    if out is None or channels is None:
        call.join(channels, out)
        return
    multiplier = out.ids.numel() // groups
    repeated = Axis(channels.ids.repeat_interleave(multiplier), channels.source.repeat_interleave(multiplier))
    call.join(repeated, out)


@rule("linear")
def linear(call: Call) -> Label:
    """y = x w^T + b; weight [out, in]."""
    value, weight, bias = call.args[0], call.args[1], call.arg(2, "bias")
    last = len(value.shape) - 1
    if len(weight.shape) == 1:  # a sum of products with one row
        result: Label = unknown(call)
        return result
    out, inner = weight.axes.get(0), weight.axes.get(1)
    call.produce(value.axes.get(last))
    call.consume(inner)
    call.produce(out)
    call.contract(value.axes.get(last), inner)
    out = _shifted(call, out, bias)
    rest = {dim: axis if bias is None else call.changed(axis) for dim, axis in value.axes.items() if dim != last}
    free = [rest.get(dim, size) for dim, size in enumerate(value.shape[:-1])]
    call.cost(*free, out or weight.shape[0], inner or weight.shape[1])
    return Label(call.shapes[0], {**rest, **({last: out} if out is not None else {})})


@rule("matmul", "bmm", "mm", "mv")
def matmul(call: Call) -> Label:
    """c[..., n, m] = sum over k of a[..., n, k] b[..., k, m]; leading dimensions broadcast."""
    first, second = call.args[0], call.args[1]
    return product(call, first, second)


@rule("dot", "vdot")
def dot(call: Call) -> Label:
    """s = sum over i of a[i] b[i]: it does not see what is zero on either side."""
    first, second = (label.axes.get(0) for label in call.args[:2])
    call.join(first, second)
    if first is not None and second is not None:
        call.blame(first.ids, torch.where((first.source == 0) | (second.source == 0), 0, first.source))
    call.cost(first or call.args[0].shape[0])
    return Label(call.shapes[0])


@rule("baddbmm", "addmm")
def addmm(call: Call) -> Any:
    """A matrix product plus a tensor that broadcasts to it."""
    added, first, second = call.args[:3]
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
    n, k, m = len(a.shape) - 2, len(a.shape) - 1, len(b.shape) - 1
    left, right = a.axes.get(k), b.axes.get(len(b.shape) - 2)
    call.consume(right)
    call.produce(a.axes.get(n))
    call.produce(left)
    call.produce(b.axes.get(m))
    call.contract(left, right)
    if len(first.shape) > 2 and len(second.shape) > 2:
        call.attend(a.axes.get(n), left, right, b.axes.get(m))
    shape = (*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[n], b.shape[m])
    axes = {}
    for dim in range(len(shape) - 2):
        pair = [_at(label, dim - len(shape)) for label in (a, b)]
        sized = [axis for axis, size in pair if size > 1 or axis is not None]
        if len(sized) == 2:
            call.join(*sized)
        present = [axis for axis in sized if axis is not None]
        if present:
            axes[dim] = Axis(present[0].ids, torch.stack([axis.source for axis in present]).amin(0))
    axes |= {len(shape) - 2: a.axes[n]} if n in a.axes else {}
    axes |= {len(shape) - 1: b.axes[m]} if m in b.axes else {}
    call.cost(*(axes.get(dim, size) for dim, size in enumerate(shape)), left or a.shape[k])
    squeezed = [
        d for d, gone in ((len(shape) - 2, len(first.shape) == 1), (len(shape) - 1, len(second.shape) == 1)) if gone
    ]
    kept = [dim for dim in range(len(shape)) if dim not in squeezed]
    return Label(call.shapes[0], {new: axes[old] for new, old in enumerate(kept) if old in axes})


def _matrix(label: Label, *, front: bool) -> Label:
    if len(label.shape) > 1:
        return label
    if front:
        return Label((1, *label.shape), {dim + 1: axis for dim, axis in label.axes.items()})
    return Label((*label.shape, 1), label.axes)


def _at(label: Label, dim: int) -> tuple[Axis | None, int]:
    if -dim > len(label.shape):
        return None, 1
    return label.axes.get(len(label.shape) + dim), label.shape[dim]


@rule("embedding")
def embedding(call: Call) -> Label:
    """Rows of a table [entries, size], picked by numbers: the entries are fixed, the size is a channel axis.

    Channels of the numbers are those of the rows, which are not zero where the numbers are.
    """
    table, numbers = call.args[0], call.args[1]
    if 0 in table.axes:
        call.freeze(table.axes[0], "entries of a table")
    call.produce(table.axes.get(1))
    shape = call.shapes[0]
    axes = {dim: call.changed(axis) for dim, axis in numbers.axes.items()}
    return Label(shape, axes | ({len(shape) - 1: table.axes[1]} if 1 in table.axes else {}))
