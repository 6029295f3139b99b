"""Operators that work on positions: padding, pooling, interpolation."""

import re

import torch

from prunus.graph.call import Call
from prunus.graph.ids import NONE
from prunus.graph.labels import Axis, Label, Labels
from prunus.graph.rules.table import rule


@rule("pad", "constant_pad_nd", "reflection_pad1d", "reflection_pad2d", "replication_pad2d")
def pad(call: Call) -> Label:
    """Padding of positions keeps the channels; padding of channels puts fixed ones beside them."""
    value, amounts, fill = call.input, call.get("pad") or call["padding"], call.get("value")
    rank = len(value.shape)
    padded = {rank - 1 - i // 2: (amounts[i], amounts[i + 1]) for i in range(0, len(amounts), 2)}
    constant = call.name == "aten::constant_pad_nd" or call.get("mode") == "constant"
    axes = {}
    for dim, axis in value.axes.items():
        ids, source = axis.ids, axis.source
        if constant and fill and any(any(amount) for other, amount in padded.items() if other != dim):
            source = torch.where(source == 0, call.number, source)
        before, after = padded.get(dim, (0, 0))
        if (before or after) and not constant:
            call.freeze(axis, f"{call.name} repeats channels beside them")
        if before < 0 or after < 0:
            call.freeze(axis, f"{call.name} cuts channels off at fixed places")
        if before or after:
            ids = torch.nn.functional.pad(ids, (before, after), value=NONE)
            source = torch.nn.functional.pad(source, (before, after), value=0)
        axes[dim] = Axis(ids, source)
    return Label(call.shapes[0], axes)


@rule("max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d", "max_pool2d_with_indices")
@rule("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool1d", "adaptive_max_pool2d")
@rule("upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "upsample_bilinear2d", "upsample_bicubic2d")
@rule("upsample_linear1d", "upsample_trilinear3d", "_upsample_nearest_exact2d", "_upsample_bicubic2d_aa")
@rule("_upsample_bilinear2d_aa", "grid_sampler", "grid_sampler_2d")
def resample(call: Call) -> Labels:
    """Each channel's positions are pooled or interpolated by themselves; zeros stay zeros."""
    value, grid = call.input, call.get("grid")
    for axis in grid.axes.values() if grid is not None else ():
        call.freeze(axis, "they are places on a grid")
    dimensions = re.search(r"(\d)d", call.name)
    kept = value.before(int(dimensions[1]) if dimensions else len(value.shape) - 2)
    for axis in (value.axes[dim] for dim in value.axes.keys() - kept.keys()):
        call.freeze(axis, "channels lie along a dimension that is resampled")
    places = {dim: call.changed(axis) for dim, axis in kept.items()}  # as a second output
    return call.outputs([Label(shape, places if number else kept) for number, shape in enumerate(call.shapes)])
