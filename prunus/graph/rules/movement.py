"""Operators that only move data: they are run on labels instead of numbers."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from prunus.graph.call import Call
from prunus.graph.ids import NONE
from prunus.graph.labels import Axis, Label
from prunus.graph.rules.table import rule

INDEXED = frozenset({"aten::index", "aten::index_select", "aten::gather", "aten::take_along_dim"})


@rule("permute", "transpose", "t", "numpy_T", "mT", "movedim", "swapaxes", "swapdims", "unsqueeze", "squeeze")
@rule(
    "repeat",
    "tile",
    "repeat_interleave",
    "flip",
    "rot90",
    "stack",
)
@rule("hstack", "vstack", "column_stack", "pixel_unshuffle")
@rule("unfold", "meshgrid", "diagonal", "view_as", "reshape_as", "adjoint")
def move(call: Call) -> Any:
    """Run the operator on the ids of each dimension that holds channels, and see where they come to lie."""
    dims = sorted({dim for label in call.labels for dim in label.axes})
    axes: list[dict[int, Axis]] = [{} for _ in call.shapes]
    for dim in dims:
        ids, source = _run(call, dim, "ids"), _run(call, dim, "source")
        for number, (moved, origin) in enumerate(zip(ids, source, strict=True)):
            placed = call.place(moved, origin)
            if placed is not None:
                _put(call, axes[number], *placed)
    return call.outputs([Label(shape, found) for shape, found in zip(call.shapes, axes, strict=True)])


def _run(call: Call, dim: int, field: str) -> list[Tensor]:
    indexed = call.name in INDEXED
    return call.run(lambda label: label.data if indexed and label.data is not None else label.expanded(dim, field))


def _put(call: Call, axes: dict[int, Axis], dim: int, axis: Axis) -> None:
    """Where two channel dimensions become one, the finer one stays and the other is frozen."""
    if dim in axes:
        other = axes[dim]
        if torch.unique(other.ids).numel() >= torch.unique(axis.ids).numel():
            axis, other = other, axis
        call.freeze(other, "two channel dimensions become one")
    axes[dim] = axis


@rule("cat", "concat", "concatenate")
def concatenate(call: Call) -> Any:
    """Run on ids; dimensions that hold no channels and are not joined are left out."""
    shape = call.shapes[0]
    along = call.arg(1, "dim", 0) % len(shape)
    held = {dim for label in call.labels for dim in label.axes}
    labels = [label for label in call.labels if len(label.shape) == len(shape)]
    axes: dict[int, Axis] = {}
    for dim in sorted(held):
        parts = []
        for field in ("ids", "source"):
            rows = []
            for label in labels:
                sizes = [n if d in (dim, along) else 1 for d, n in enumerate(label.shape)]
                rows.append(label.expanded(dim, field, sizes))
            parts.append(torch.cat(rows, along))
        placed = call.place(*parts)
        if placed is not None:
            _put(call, axes, *placed)
    return Label(shape, axes)


@rule("im2col")
def im2col(call: Call) -> Label:
    """[N, C, H, W] -> [N, C * k_h * k_w, L]: each channel becomes the k_h * k_w entries of its windows."""
    value: Label = call.args[0]
    dim = len(value.shape) - 3
    for other, position in value.axes.items():
        if other > dim:
            call.freeze(position, "channels lie along a dimension that the windows slide over")
    axis, window = value.axes.get(dim), math.prod(call.args[1])
    if axis is None:
        return Label(call.shapes[0])
    return Label(call.shapes[0], {dim: Axis(axis.ids.repeat_interleave(window), axis.source.repeat_interleave(window))})


@rule("pixel_shuffle")
def pixel_shuffle(call: Call) -> Any:
    """r * r channels become one with r * r times the positions: they go together."""
    value, block = call.args[0], call.args[1] ** 2
    dim = len(value.shape) - 3
    if any(other > dim for other in value.axes):
        return move(call)
    axes = dict(value.axes)
    if dim in axes:
        call.couple(axes[dim].ids.reshape(-1, block).T)
        axes[dim] = Axis(axes[dim].ids[::block], axes[dim].source.reshape(-1, block).amax(1))
    return Label(call.shapes[0], axes)


@rule("channel_shuffle")
def channel_shuffle(call: Call) -> Any:
    """Groups of channels are interleaved: they stay equally large, so channels at one position of all go together."""
    value: Label = call.args[0]
    if 1 in value.axes:
        call.couple(value.axes[1].ids.reshape(call.args[1], -1))
    return move(call)


@rule("view", "reshape", "_unsafe_view", "flatten", "unflatten", "_reshape_alias")
def view(call: Call) -> Any:
    """Data movement; sizes that the code wrote down, rather than left to be inferred, must still be right."""
    value: Label = call.args[0]
    axes: dict[int, Axis] = {}
    for dim, axis in value.axes.items():
        (start, end), (first, last) = _block(value.shape, call.shapes[0], dim)
        small = Label(value.shape[start:end], {dim - start: axis})
        parts = (small.expanded(dim - start, f).reshape(call.shapes[0][first:last]) for f in ("ids", "source"))
        placed = call.place(*parts)
        if placed is not None:
            _put(call, axes, placed[0] + first, placed[1])
    result = Label(call.shapes[0], axes)
    if call.name == "aten::flatten":
        return result
    sizes = call.arg(2, "sizes") if call.name == "aten::unflatten" else call.arg(1, "size", call.kwargs.get("shape"))
    inferred = -1 in sizes
    for dim, axis in result.axes.items():
        written = list(sizes)[dim] if call.name != "aten::unflatten" and dim < len(sizes) else None
        if not (inferred and written == -1):
            call.written(axis)
    return result


def _block(shape: Sequence[int], new: Sequence[int], dim: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the ranges of dimensions, before and after, of the smallest part with `dim` that is reshaped by itself."""
    i = j = 0
    while True:
        start, first = i, j
        left, right = shape[i], new[j] if j < len(new) else 1
        i, j = i + 1, min(j + 1, len(new))
        while left != right:
            if left < right:
                left, i = left * shape[i], i + 1
            else:
                right, j = right * new[j], j + 1
        if i > dim:
            return (start, i), (first, j)


@rule("expand", "expand_as", "broadcast_to")
def expand(call: Call) -> Any:
    """Data movement; a size that is written down rather than kept (-1) must still be right."""
    result: Label = move(call)
    sizes = call.arg(1, "size")
    if isinstance(sizes, list | tuple):
        for dim, axis in result.axes.items():
            if sizes[dim] != -1:
                call.written(axis)
    return result


@rule("chunk", "tensor_split", "unsafe_chunk")
def chunk(call: Call) -> Any:
    """Equal parts stay equal only if each loses as much: channels at one position of all parts go together."""
    value, parts, dim = call.args[0], call.args[1], call.arg(2, "dim", 0) % len(call.args[0].shape)
    if dim not in value.axes:
        return move(call)
    ids = value.axes[dim].ids
    if not isinstance(parts, int) or ids.numel() % parts:
        return fixed(call)
    call.couple(ids.reshape(parts, -1))
    return move(call)


@rule("slice", "narrow", "split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes")
def part(call: Call) -> Any:
    """Consecutive parts of a dimension. Along channels the positions are written down: parts of one unit are taken
    for equal ones, and what the code does at another width is seen by `probe`."""
    value: Label = call.args[0]
    result = move(call)
    for dim in _touched(call) & value.axes.keys():
        if _takes_all(call, dim):
            continue
        if call.kwargs.get("step", call.arg(4, "step", 1)) != 1 and call.name == "aten::slice":
            call.freeze(value.axes[dim], "every n-th channel is taken")
            continue
        size, unit = value.shape[dim], _unit(call, dim)
        if not (
            isinstance(call.arg(1, "split_sizes"), list | tuple) and len({shape[dim] for shape in call.shapes}) > 1
        ):
            call.couple(value.axes[dim].ids.reshape(size // unit, unit))  # unlike parts have a number each
        for label in result if isinstance(result, list) else [result]:
            if dim in label.axes:
                call.written(label.axes[dim])
    return result


def _unit(call: Call, dim: int) -> int:
    """Return the largest size of which all parts are multiples."""
    size = call.args[0].shape[dim]
    if call.name in ("aten::slice", "aten::narrow"):
        start = (call.arg(2, "start", 0) or 0) % (size + 1)
        return math.gcd(size, start, call.shapes[0][dim])
    return math.gcd(*(shape[dim] for shape in call.shapes))


@rule("select", "unbind", "index", "index_select", "roll", "gather", "take_along_dim")
def fixed(call: Call) -> Any:
    """Single positions of a dimension: channels along it cannot move."""
    value: Label = call.args[0]
    touched = _touched(call)
    for dim, axis in value.axes.items():
        if dim in touched:
            call.freeze(axis, f"{call.name} works at fixed positions")
    if all(label.data is not None for label in call.labels[1:]) and value.data is None:
        return move(call)
    for axis in value.axes.values():
        call.freeze(axis, f"{call.name} works at positions that the data decide")
    return call.plain()


def _touched(call: Call) -> set[int]:
    """Return the dimensions that the operator indexes."""
    value: Label = call.args[0]
    rank = len(value.shape)
    if call.name == "aten::index":
        return {dim for dim, index in enumerate(call.args[1]) if index is not None}
    position = 2 if "split" in call.name or call.name == "aten::roll" else 1
    dim = call.arg(position, "dims" if call.name == "aten::roll" else "dim", 0)
    return {d % rank for d in (dim if isinstance(dim, list | tuple) else (dim,))}


def _takes_all(call: Call, dim: int) -> bool:
    """Whether a slice keeps the whole dimension (`x[:, :]`)."""
    return call.name == "aten::slice" and call.shapes[0][dim] == call.args[0].shape[dim]


@rule("pad", "constant_pad_nd", "reflection_pad1d", "reflection_pad2d", "replication_pad2d", "zero_pad2d")
def pad(call: Call) -> Label:
    """Padding of positions keeps the channels; padding of channels puts fixed ones beside them."""
    value, amounts = call.args[0], call.args[1]
    fill = call.arg(3, "value") if call.name == "aten::pad" else call.arg(2, "value")
    rank = len(value.shape)
    padded = {rank - 1 - i // 2: (amounts[i], amounts[i + 1]) for i in range(0, len(amounts), 2)}
    constant = (
        call.name in ("aten::constant_pad_nd", "aten::zero_pad2d") or call.arg(2, "mode", "constant") == "constant"
    )
    axes = {}
    for dim, axis in value.axes.items():
        ids, source = axis.ids, axis.source
        if constant and fill and any(any(amount) for other, amount in padded.items() if other != dim):
            source = torch.where(source == 0, call.number, source)
        before, after = padded.get(dim, (0, 0))
        if before or after:
            ids = torch.nn.functional.pad(ids, (before, after), value=NONE)
            source = torch.nn.functional.pad(source, (before, after), value=0)
        axes[dim] = Axis(ids, source)
    return Label(call.shapes[0], axes)


@rule("max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d")
@rule(
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
    "max_pool2d_with_indices",
)
@rule(
    "upsample_nearest1d",
    "upsample_nearest2d",
    "upsample_nearest3d",
    "upsample_bilinear2d",
    "upsample_bicubic2d",
)
@rule("upsample_linear1d", "upsample_trilinear3d", "_upsample_nearest_exact2d", "_upsample_bicubic2d_aa")
@rule("_upsample_bilinear2d_aa", "grid_sampler", "grid_sampler_2d", "im2col_positions")
def resample(call: Call) -> Any:
    """Each channel's positions are pooled or interpolated by themselves; zeros stay zeros."""
    value: Label = call.args[0]
    rank, positions = len(value.shape), _num_positions(call.name, len(value.shape))
    kept = {}
    for dim, axis in value.axes.items():
        if dim < rank - positions:
            kept[dim] = axis
        else:
            call.freeze(axis, "channels lie along a dimension that is resampled")
    return call.outputs([Label(shape, kept) for shape in call.shapes])


def _num_positions(name: str, rank: int) -> int:
    for digit in "123":
        if f"{digit}d" in name:
            return int(digit)
    return rank - 2
