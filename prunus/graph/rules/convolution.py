"""Convolutions, direct and transposed, with any number of groups."""

import math

import torch

from prunus.graph.call import Call
from prunus.graph.findings import Kind
from prunus.graph.ids import NONE
from prunus.graph.labels import Axis, Label, Labels
from prunus.graph.rules.contraction import plus
from prunus.graph.rules.table import rule


@rule("conv1d", "conv2d", "conv3d")
def conv(call: Call) -> Label:
    """y[o] = sum over i, k of w[o, i, k] x[i, k] + b[o]; weight [out, in / groups, *kernel]."""
    weight, groups = call["weight"], call["groups"]
    channels, out, inner = _channels(call), weight.axes.get(0), weight.axes.get(1)
    call.produce(channels)
    call.consume(inner)
    if groups == 1:
        call.contract(call.as_wide(call["input"], call["input"].last + 2 - len(weight.shape), inner), inner)
    elif weight.shape[1] == 1 or _go_together(call, channels, groups):
        read, each = channels and channels.blocks(weight.shape[1]), weight.shape[0] // groups
        read = read and read.mapped(lambda values: values.repeat_interleave(each))
        out = call.as_wide(weight, 0, read)  # one kernel may be repeated over all channels
        call.join(read, out)  # output j * m + i reads only group j
        if channels is not None:
            call.hard_coded(channels)
        return _output(call, _product(out, read), call.shapes[0], rows=out)
    else:
        call.contract(channels, _repeated(inner, groups))
        if out is not None:
            call.couple(out.ids.reshape(groups, -1))
    return _output(call, out, call.shapes[0])


@rule("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def conv_transpose(call: Call) -> Label:
    """A transposed convolution; weight [in, out / groups, *kernel]."""
    image, weight, groups = call["input"], call["weight"], call["groups"]
    channels, inner, out = _channels(call), weight.axes.get(0), weight.axes.get(1)
    call.produce(channels)
    if groups > 1 and weight.shape[1] == 1 and weight.shape[0] == groups:
        inner = call.as_wide(weight, 0, channels)
        call.join(channels, inner)
        if channels is not None:
            call.hard_coded(channels)
        return _output(call, _product(inner, channels), image.shape, rows=inner)
    call.consume(inner)
    call.contract(channels, inner)
    if groups > 1 and inner is not None:
        call.couple(inner.ids.reshape(groups, -1))
    return _output(call, _repeated(out, groups), image.shape)


@rule("convolution")
def convolution(call: Call) -> Labels:
    """A convolution, direct or transposed."""
    return (conv_transpose if call["transposed"] else conv)(call)


def _output(call: Call, out: Axis | None, slid: tuple[int, ...], rows: Axis | None = None) -> Label:
    """Join the bias, count the multiply-adds (the kernel is applied once per position of `slid`), label the output.

    `rows` are the channels along the weight's first dimension; by default those of its label.
    """
    weight, shape = call["weight"], call.shapes[0]
    for dim, axis in weight.axes.items():
        call.findings.mark(Kind.POSITION, axis if dim > 1 else None)
    dim = len(shape) - len(weight.shape) + 1
    call.produce(out)
    fixed = math.prod(shape[:dim]) * math.prod(slid[dim + 1 :]) * math.prod(weight.shape[2:])
    rows = rows or weight.axes.get(0)
    call.cost(fixed, rows or weight.shape[0], weight.axes.get(1, weight.shape[1]))
    result, bias = Label(shape, {dim: out} if out is not None else {}), call["bias"]
    return (
        result if bias is None else plus(call, result, Label((*bias.shape, *[1] * (len(weight.shape) - 2)), bias.axes))
    )


def _product(out: Axis | None, read: Axis | None) -> Axis | None:
    """Return the axis of outputs that read one input each: zero where the weight or the input is."""
    if out is None or read is None:
        return out
    return Axis(out.ids, torch.where(read.source == 0, 0, out.source))


def _go_together(call: Call, channels: Axis | None, groups: int) -> bool:
    """Return whether the channels of each group are united already, as between the factors of a depthwise layer."""
    if channels is None or channels.ids.numel() % groups or bool((channels.ids == NONE).any()):
        return False
    rows = call.findings.ids.classes()[channels.ids].reshape(groups, -1)
    return bool((rows == rows[:, :1]).all())


def _repeated(axis: Axis | None, groups: int) -> Axis | None:
    """Repeat the axis per group: column i of a grouped weight belongs to channel i of each, so these go together."""
    return axis and axis.mapped(lambda values: values.repeat(groups))


def _channels(call: Call) -> Axis | None:
    """Return the channels of [N, C, *positions] or [C, *positions]; refuse channels at any other dimension."""
    image, weight = call["input"], call["weight"]
    dim = len(image.shape) - len(weight.shape) + 1
    for other, axis in image.axes.items():
        if other != dim:
            call.freeze(axis, "channels lie along a dimension that the kernel slides over")
    found: Axis | None = image.axes.get(dim)
    return found
