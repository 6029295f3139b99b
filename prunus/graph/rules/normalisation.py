"""Normalisations: what they share, and what they mix."""

from typing import Any

import torch
from torch import Tensor

from prunus.graph.call import Call
from prunus.graph.findings import Kind
from prunus.graph.labels import Axis, Label, Labels
from prunus.graph.rules.table import rule


@rule("batch_norm", "native_batch_norm", "cudnn_batch_norm", "_native_batch_norm_legit_no_training")
@rule("_native_batch_norm_legit", "_native_batch_norm_legit_functional", "_batch_norm_no_update")
@rule("_batch_norm_with_update")
def batch_norm(call: Call) -> Labels:
    """y = (x - mean) / sqrt(var + eps) * gamma + beta for each channel, dimension 1.

    With gamma and beta zero the output is zero whatever comes in. Without them it is zero where the input and
    its running mean are, so the mean belongs to what must be zero.
    """
    return _by_channel(call, by_input=call.get("running_mean") is None, mixes=call.get("training") is True)


@rule("instance_norm")
def instance_norm(call: Call) -> Labels:
    """Normalises each channel of each sample over its positions, by their statistics or by the running ones."""
    return _by_channel(call, by_input=call["use_input_stats"], mixes=False, sampled=True)


def _by_channel(call: Call, *, by_input: bool, mixes: bool, sampled: bool = False) -> Labels:
    """Normalise each channel by itself, over the samples too unless they are `sampled` one by one."""
    value, gamma, beta = call["input"], call["weight"], call["bias"]
    mean, variance = call.get("running_mean"), call.get("running_var")
    channels = value.axes.get(1)
    for dim, axis in value.axes.items():
        if dim > 1 if sampled else dim != 1 and (by_input or mixes):
            call.approximate(axis, f"{call.name} takes the mean over it")
    for label in (gamma, beta, mean, variance):
        if label is not None:
            call.join(channels, label.axes.get(0))
    for label in (variance, mean if gamma is not None else None):
        call.findings.mark(Kind.STATISTIC, label and label.axes.get(0))
    if gamma is None and mean is not None and not (sampled and by_input):
        call.findings.mark(Kind.ZEROED, mean.axes.get(0))
    shift = None if sampled and by_input else mean
    axes = {d: call.changed(a) if d != 1 else scaled(call, a, gamma, beta, shift) for d, a in value.axes.items()}
    return call.first_output(axes)


def scaled(call: Call, channels: Axis, gamma: Any, beta: Any, mean: Any = None) -> Axis:
    """(x - mean) * gamma + beta is zero where gamma and beta are, or else where x, the mean and beta are."""
    source = channels.source if mean is None or gamma is None else channels.source.clamp(min=call.number)
    if gamma is not None:
        source = torch.where(_source(call, gamma, channels) == 0, 0, source)
    if beta is not None:
        source = torch.maximum(source, _source(call, beta, channels))
    return Axis(channels.ids, source)


def _source(call: Call, label: Label, channels: Axis) -> Tensor:
    """Return where a factor or a shift, which is a value here, is not zero with its channels."""
    known = label.axes.get(0)
    call.produce(known)
    return known.source if known is not None else torch.full_like(channels.ids, call.number)


@rule("layer_norm", "native_layer_norm", "rms_norm", "_fused_rms_norm")
def layer_norm(call: Call) -> Labels:
    """Normalises over the last dimensions: a removed channel changes mean and variance of all others."""
    value, weight, bias = call["input"], call["weight"], call.get("bias")
    first = len(value.shape) - len(call["normalized_shape"])
    axes = dict(value.axes)
    for dim in range(first, len(value.shape)):
        axis = value.axes.get(dim)
        for label in (weight, bias):
            if label is not None:
                call.join(axis, label.axes.get(dim - first))
        if axis is not None:
            call.approximate(axis, f"{call.name} takes the mean over the channels")
            call.hard_coded(axis, follows=call.follows and weight is not None)
            axes[dim] = Axis.of(axis.ids)
    for label in (weight, bias):
        for axis in label.axes.values() if label is not None else ():
            call.produce(axis)
    if bias is not None:
        axes |= {dim: call.changed(axis) for dim, axis in axes.items() if dim < first}
    return call.first_output(axes)


@rule("group_norm", "native_group_norm")
def group_norm(call: Call) -> Labels:
    """Normalises over groups of channels: the channels of a group are removed together, their number follows.

    One group of all channels is a layer norm: a removed channel changes mean and variance of all others.
    """
    value, weight, bias = call["input"], call["weight"], call["bias"]
    groups = call.get("num_groups") or call.get("group")
    axis = value.axes.get(1)
    for label in (weight, bias):
        if label is not None:
            call.join(axis, label.axes.get(0))
    axes = {dim: other if dim == 1 else call.changed(other) for dim, other in value.axes.items()}
    if axis is not None:
        size = axis.ids.numel() // groups
        if groups == 1:
            call.approximate(axis, f"{call.name} takes the mean over the channels")
        else:
            call.couple(axis.ids.reshape(groups, size).T)
            follows = size == 1 and call.follows and weight is not None
            call.hard_coded(Axis(axis.ids[::size], axis.source[::size]), follows=follows)
        axes[1] = scaled(call, axis, weight, bias)
    for dim, other in value.axes.items():
        if dim > 1:
            call.approximate(other, f"{call.name} takes the mean over it")
    return call.first_output(axes)


@rule("_weight_norm", "_weight_norm_interface")
def weight_norm(call: Call) -> Labels:
    """w = g v / ||v||, the norm over all dimensions of v but `dim`: w is zero where g is, and v must not be.

    Along the other dimensions the norm mixes, so that their channels change all of w.
    """
    direction, length, dim, axes = call["v"], call["g"], call["dim"], {}
    lengths = length.axes.get(dim if len(length.shape) > 1 else 0)
    call.join(direction.axes.get(dim), lengths)
    for other, axis in direction.axes.items():
        if other == dim:
            call.findings.mark(Kind.STATISTIC, axis)
        else:
            call.approximate(axis, f"{call.name} takes the norm over it")
        axes[other] = lengths if other == dim and lengths is not None else axis
    return call.first_output(axes)
