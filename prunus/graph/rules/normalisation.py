"""Normalisations: what they share, and what they mix."""

from typing import Any

import torch
from torch import Tensor

from prunus.graph.call import Call
from prunus.graph.labels import Axis, Label
from prunus.graph.rules.table import rule


@rule(
    "batch_norm",
    "_native_batch_norm_legit_no_training",
    "_native_batch_norm_legit",
    "native_batch_norm",
    "cudnn_batch_norm",
)
@rule("_native_batch_norm_legit_functional", "_batch_norm_no_update", "_batch_norm_with_update")
def batch_norm(call: Call) -> Any:
    """y = (x - mean) / sqrt(var + eps) * gamma + beta for each channel, dimension 1.

    With gamma and beta zero the output is zero whatever comes in. Without them it is zero where the input and
    its running mean are, so the mean belongs to what must be zero.
    """
    value, gamma, beta, mean, variance = call.args[:5]
    channels = value.axes.get(1)
    if mean is None or call.arg(5, "training") is True:
        for dim, axis in value.axes.items():
            if dim != 1:
                call.approximate(axis, f"{call.name} takes the mean over it")
    for label in (gamma, beta, mean, variance):
        if label is not None:
            call.join(channels, label.axes.get(0))
    for label in (variance, mean if gamma is not None else None):
        if label is not None and 0 in label.axes:
            call.findings.statistics.append(label.axes[0].ids)
    if gamma is None and mean is not None and 0 in mean.axes:
        call.findings.needed.append(mean.axes[0].ids)
    axes = {d: call.changed(a) if d != 1 else scaled(call, a, gamma, beta, mean) for d, a in value.axes.items()}
    return call.outputs([Label(shape, axes if n == 0 else {}) for n, shape in enumerate(call.shapes)])


def scaled(call: Call, channels: Axis, gamma: Any, beta: Any, mean: Any = None) -> Axis:
    """(x - mean) * gamma + beta is zero where gamma and beta are, or else where x, the mean and beta are."""
    source = channels.source if mean is None or gamma is None else channels.source.clamp(min=call.number)
    if gamma is not None:
        own = _source(call, gamma, channels)
        source = torch.where(own == 0, 0, source)
    if beta is not None:
        source = torch.maximum(source, _source(call, beta, channels))
    return Axis(channels.ids, source)


def _source(call: Call, label: Label, channels: Axis) -> Tensor:
    """Return where a factor or a shift, which is a value here, is not zero with its channels."""
    call.produce(label.axes.get(0))
    known = label.axes.get(0)
    return known.source if known is not None else torch.full_like(channels.ids, call.number)


@rule("layer_norm", "native_layer_norm", "rms_norm", "_fused_rms_norm")
def layer_norm(call: Call) -> Any:
    """Normalises over the last dimensions: a removed channel changes mean and variance of all others."""
    value, normalized = call.args[0], call.args[1]
    first = len(value.shape) - len(normalized)
    weights = [call.arg(2, "weight"), call.arg(3, "bias") if "layer" in call.name else None]
    axes = dict(value.axes)
    for dim in range(first, len(value.shape)):
        axis = value.axes.get(dim)
        for weight in weights:
            if isinstance(weight, Label):
                call.join(axis, weight.axes.get(dim - first))
        if axis is not None:
            call.approximate(axis, f"{call.name} takes the mean over the channels")
            if not (call.settled and isinstance(weights[0], Label)):
                call.written(axis, settled=False)
            axes[dim] = Axis.of(axis.ids)
    for weight in weights:
        for axis in weight.axes.values() if isinstance(weight, Label) else ():
            call.produce(axis)
    if isinstance(weights[1], Label):
        axes |= {dim: call.changed(axis) for dim, axis in axes.items() if dim < first}
    return call.outputs([Label(shape, axes if n == 0 else {}) for n, shape in enumerate(call.shapes)])


@rule("group_norm", "native_group_norm")
def group_norm(call: Call) -> Any:
    """Normalises over groups of channels: the channels of a group go together, and the number of groups follows.

    One group of all channels is a layer norm: a removed channel changes mean and variance of all others.
    """
    value, groups = call.args[0], call.arg(1, "num_groups")
    weight, bias = call.arg(2, "weight"), call.arg(3, "bias")
    if call.name == "aten::native_group_norm":
        weight, bias, groups = call.args[1], call.args[2], call.args[6]
    axis = value.axes.get(1)
    for label in (weight, bias):
        if label is not None:
            call.join(axis, label.axes.get(0))
    axes = dict(value.axes)
    if axis is not None:
        size = axis.ids.numel() // groups
        if groups == 1:
            call.approximate(axis, f"{call.name} takes the mean over the channels")
        else:
            call.couple(axis.ids.reshape(groups, size).T)
            settled = size == 1 and call.settled and weight is not None
            call.written(Axis(axis.ids[::size], axis.source[::size]), settled=settled)
        axes[1] = scaled(call, axis, weight, bias)
    for dim, other in value.axes.items():
        if dim > 1:
            call.approximate(other, f"{call.name} takes the mean over it")
        if dim != 1:
            axes[dim] = call.changed(other)
    return call.outputs([Label(shape, axes if n == 0 else {}) for n, shape in enumerate(call.shapes)])


@rule("instance_norm")
def instance_norm(call: Call) -> Label:
    """Normalises each channel of each sample over its positions."""
    value, channels = call.args[0], call.args[0].axes.get(1)
    for label in call.args[1:5]:
        if isinstance(label, Label):
            call.join(channels, label.axes.get(0))
    gamma, beta, mean, variance, by_input = call.args[1:6]
    for label in (variance, mean if gamma is not None else None):
        if label is not None and 0 in label.axes:
            call.findings.statistics.append(label.axes[0].ids)
    if gamma is None and mean is not None and 0 in mean.axes and not by_input:
        call.findings.needed.append(mean.axes[0].ids)
    axes = {}
    for dim, axis in value.axes.items():
        if dim > 1:
            call.approximate(axis, f"{call.name} takes the mean over it")
        shift = None if by_input else mean
        axes[dim] = scaled(call, axis, gamma, beta, shift) if dim == 1 else call.changed(axis)
    return Label(value.shape, axes)


@rule("_weight_norm", "_weight_norm_interface")
def weight_norm(call: Call) -> Any:
    """w = g v / ||v||, the norm over all dimensions of v but `dim`: w is zero where g is, and v must not be.

    Along the other dimensions the norm mixes, so that their channels change all of w.
    """
    direction, length, dim = call.args[0], call.args[1], call.arg(2, "dim", 0)
    own, lengths, axes = direction.axes.get(dim), length.axes.get(dim if len(length.shape) > 1 else 0), {}
    call.join(own, lengths)
    for other, axis in direction.axes.items():
        if other == dim:
            call.findings.statistics.append(direction.axes[dim].ids)
        else:
            call.approximate(axis, f"{call.name} takes the norm over it")
        axes[other] = lengths if other == dim and lengths is not None else axis
    return call.outputs([Label(shape, axes if n == 0 else {}) for n, shape in enumerate(call.shapes)])
