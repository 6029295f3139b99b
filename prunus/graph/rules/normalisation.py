"""Normalisations: the parameters that they share with channels, and the dimensions that they mix."""

from collections.abc import Collection

import torch

from prunus.graph.call import Call
from prunus.graph.findings import Kind
from prunus.graph.labels import Axis, Label, Labels
from prunus.graph.rules.table import rule


@rule("batch_norm", "native_batch_norm", "cudnn_batch_norm", "_native_batch_norm_legit_no_training")
@rule("_native_batch_norm_legit", "_native_batch_norm_legit_functional", "_batch_norm_no_update")
@rule("_batch_norm_with_update")
def batch_norm(call: Call) -> Labels:
    """y = (x - mean) / sqrt(var + eps) * gamma + beta per channel (dimension 1)."""
    mean: Label | None = call.get("running_mean")
    mixed = {0, *range(2, len(call.input.shape))} if mean is None or call.get("training") is True else ()
    return _by_channel(call, mixed, mean)


@rule("instance_norm")
def instance_norm(call: Call) -> Labels:
    """Normalises each channel of each sample over its positions, by their statistics or by running statistics."""
    if call["use_input_stats"]:
        return _by_channel(call, range(2, len(call.input.shape)), None)
    return _by_channel(call, (), call["running_mean"])


def _by_channel(call: Call, mixed: Collection[int], mean: Label | None) -> Labels:
    """Normalise each channel independently, over the dimensions `mixed`.

    Where gamma and beta are zero, the output is zero for any input. Without gamma and beta it is zero where the input
    and its running mean are, so the mean must be zero too.
    """
    for label in (call.get("running_mean"), call.get("running_var")):
        if label is not None:
            call.join(call.input.axes.get(1), label.axes.get(0))
            call.findings.mark(Kind.STATISTIC, label.axes.get(0))
    if mean is not None and call["weight"] is None:
        call.findings.mark(Kind.ZEROED, mean.axes.get(0))
    return _normalised(call, mixed, range(1, 2), mean)


@rule("layer_norm", "native_layer_norm", "rms_norm", "_fused_rms_norm")
def layer_norm(call: Call) -> Labels:
    """Normalises over the last dimensions: a removed channel changes mean and variance of all others."""
    rank = len(call.input.shape)
    last = range(rank - len(call["normalized_shape"]), rank)
    for axis in (call.input.axes[dim] for dim in last if dim in call.input.axes):
        call.hard_coded(axis, follows=call.follows and call["weight"] is not None)
    return _normalised(call, last, last)


@rule("group_norm", "native_group_norm")
def group_norm(call: Call) -> Labels:
    """Normalises over groups of channels: the channels of a group are removed together, and fewer groups are left.

    One group of all channels is a layer norm: a removed channel changes mean and variance of all others.
    """
    groups, axis = call.get("num_groups") or call.get("group"), call.input.axes.get(1)
    if axis is not None and groups > 1:
        size = axis.ids.numel() // groups
        call.couple(axis.ids.reshape(groups, size).T)
        call.hard_coded(axis.blocks(size), follows=size == 1 and call.follows and call["weight"] is not None)
    return _normalised(call, range(1 if groups == 1 else 2, len(call.input.shape)), range(1, 2))


def _normalised(call: Call, mixed: Collection[int], scaled: range, mean: Label | None = None) -> Labels:
    """y = (x - mean) * gamma + beta: `mean` running or over the dimensions `mixed`, gamma and beta along `scaled`."""
    value, gamma, beta = call["input"], call["weight"], call.get("bias")
    for label in (gamma, beta):
        for dim in scaled if label is not None else ():
            call.join(value.axes.get(dim), label.axes.get(dim - scaled.start))
            call.produce(label.axes.get(dim - scaled.start))  # gamma and beta are values here
    axes = {}
    for dim, axis in value.axes.items():
        if dim in mixed:
            call.approximate(axis, f"{call.name} takes the mean over {'the channels' if dim in scaled else 'it'}")
        if dim not in scaled:
            axes[dim] = axis if dim not in mixed and beta is None and mean is None else call.changed(axis)
            continue
        # The output is zero where gamma and beta are, or else where x, the mean and beta are.
        source = axis.source if mean is None or gamma is None else axis.source.clamp(min=call.number)
        if gamma is not None:
            source = torch.where(gamma.source_along(dim - scaled.start, call.number) == 0, 0, source)
        if beta is not None:
            source = torch.maximum(source, beta.source_along(dim - scaled.start, call.number))
        axes[dim] = Axis(axis.ids, source)
    return call.results(axes)


@rule("_weight_norm", "_weight_norm_interface")
def weight_norm(call: Call) -> Labels:
    """w = g v / ||v||, the norm over all dimensions of v but `dim`: w is zero where g is; v must not be zero.

    The norm mixes the other dimensions, so removing channels along them changes all of w.
    """
    direction, length, dim, axes = call["v"], call["g"], call["dim"], {}
    lengths = length.axes.get(dim if length.last else 0)
    call.join(direction.axes.get(dim), lengths)
    for other, axis in direction.axes.items():
        if other == dim:
            call.findings.mark(Kind.STATISTIC, axis)
        else:
            call.approximate(axis, f"{call.name} takes the norm over it")
        axes[other] = lengths if other == dim and lengths is not None else axis
    return call.results(axes)
