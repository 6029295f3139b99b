"""Operators that only move data: they are run on labels instead of numbers."""

import math

import torch
from torch import Tensor

from prunus.graph.call import Call
from prunus.graph.labels import Axis, Label, Labels
from prunus.graph.rules.placement import place
from prunus.graph.rules.table import rule

ZERO = torch.zeros((), dtype=torch.long)


@rule("permute", "transpose", "t", "numpy_T", "mT", "mH", "matrix_H", "adjoint", "movedim", "swapaxes", "swapdims")
@rule("unsqueeze", "flip", "rot90", "stack", "hstack", "vstack", "column_stack")
@rule("pixel_unshuffle", "meshgrid", "view_as", "reshape_as")
def move(call: Call) -> Labels:
    """Run the operator on the ids of each dimension that holds channels, and find where they lie in the output."""
    _values(call)
    axes: list[dict[int, Axis]] = [{} for _ in call.shapes]
    for dim in sorted({dim for label in call.labels for dim in label.axes}):
        moved(call, dim, axes)
    return call.results(*axes)


@rule("repeat_interleave")
def repeat(call: Call) -> Labels:
    """Rows repeated as often as given by a number or another tensor."""
    axes: dict[int, Axis] = {}
    for dim in call.input.axes:
        moved(call, dim, [axes], steered=True)
    return call.results(axes)


@rule("squeeze")
def squeeze(call: Call) -> Labels:
    """A squeeze; without `dim` it would remove the channel dimension if one channel were left, so two channels stay."""
    for axis in call.input.axes.values() if "dim" not in call.arguments else ():
        call.freeze(axis.ids[:2], "squeeze() names no dimension, and must find two channels")
    return move(call)


def _values(call: Call) -> None:
    """Mark channels of tensors put side by side as produced: a weight is a value here, even if it reads elsewhere."""
    for label in call.labels if len(call.labels) > 1 else []:
        for axis in label.axes.values():
            call.produce(axis)


@rule("broadcast_tensors")
def broadcast(call: Call) -> Labels:
    """Each tensor broadcast to the common shape: the added dimensions hold data."""
    labels = []
    for label, shape in zip(call.labels, call.shapes, strict=True):
        more = len(shape) - len(label.shape)
        labels.append(Label(shape, {dim + more: axis for dim, axis in label.axes.items()}))
    return labels


@rule("tril", "triu")
def triangle(call: Call) -> Labels:
    """Zeros on one side of the diagonal of the last two dimensions."""
    value = call.input
    for dim in (value.last - 1, value.last):
        call.freeze(value.axes.get(dim), f"{call.name} works at fixed positions")
    return Label(value.shape, value.axes)


@rule("unfold", "diagonal")
def slid(call: Call) -> Labels:
    """Windows that slide along a dimension, or the diagonal of two: channels there are read at fixed positions."""
    for name in {"dimension", "dim1", "dim2"} & call.arguments.keys():
        call.freeze(call.input.axes.get(call[name] % len(call.input.shape)), f"{call.name} is taken along them")
    return move(call)


def moved(call: Call, dim: int, axes: list[dict[int, Axis]], *, steered: bool = False) -> None:
    """Run the operator on the ids of one dimension; put them into the `axes` of each output.

    A `steered` operator takes the values of tensors that are known: these values determine where data go.
    """

    def run(field: str) -> list[Tensor]:
        return call.run(lambda each: each.data if steered and each.data is not None else each.expanded(dim, field))

    ids = run("ids")
    zero = not any(bool(label.axes[dim].source.any()) for label in call.labels if dim in label.axes)
    sources = [ZERO.expand(each.shape) for each in ids] if zero else run("source")
    for number, (each, source) in enumerate(zip(ids, sources, strict=True)):
        place(call, each, source, axes[number])


@rule("cat", "concat", "concatenate")
def concatenate(call: Call) -> Labels:
    """Run on ids; dimensions that hold no channels and are not concatenated are left out."""
    shape = call.shapes[0]
    along = call["dim"] % len(shape)
    _values(call)
    labels = _widened(call, [label for label in call.labels if len(label.shape) == len(shape)], along)
    held = {dim for label in labels for dim in label.axes}
    axes: dict[int, Axis] = {}
    for dim in sorted(held):
        sizes = [[n if d in (dim, along) else 1 for d, n in enumerate(label.shape)] for label in labels]
        rows = list(zip(labels, sizes, strict=True))
        ids, source = (
            torch.cat([label.expanded(dim, field, size) for label, size in rows], along) for field in ("ids", "source")
        )
        place(call, ids, source, axes)
    return Label(shape, axes)


def _widened(call: Call, labels: list[Label], along: int) -> list[Label]:
    """Give constants the channels of the tensors beside them, and zeros put beside channels new channels."""
    like = {dim: axis for label in labels for dim, axis in label.axes.items() if dim != along}
    found = list[Label]()
    for number, label in enumerate(labels):
        axes = {dim: call.as_wide(label, dim, axis) for dim, axis in like.items()} | label.axes
        if along not in axes and label.is_zero:
            axes[along] = call.zeros(number, label.shape[along])
        found.append(Label(label.shape, {dim: axis for dim, axis in axes.items() if axis is not None}))
    return found


@rule("im2col")
def im2col(call: Call) -> Label:
    """[N, C, H, W] -> [N, C * k_h * k_w, L]: each channel becomes the k_h * k_w entries of its windows."""
    value = call["input"]
    dim = len(value.shape) - 3
    for other, position in value.axes.items():
        if other > dim:
            call.freeze(position, "channels lie along a dimension that the windows slide over")
    axis, window = value.axes.get(dim), math.prod(call["kernel_size"])
    if axis is None:
        return Label(call.shapes[0])
    return Label(call.shapes[0], {dim: axis.mapped(lambda values: values.repeat_interleave(window))})


@rule("col2im")
def col2im(call: Call) -> Label:
    """[N, C * k_h * k_w, L] -> [N, C, H, W]: each channel sums k_h * k_w entries, which are removed together."""
    value, window = call["input"], math.prod(call["kernel_size"])
    dim = value.last - 1
    call.freeze(value.axes.get(value.last), "channels lie along the windows")
    axes = value.before(1)
    if dim in axes:
        call.couple(axes[dim].ids.reshape(-1, window).T)
        axes[dim] = axes[dim].blocks(window)
    return Label(call.shapes[0], axes)


@rule("pixel_shuffle")
def pixel_shuffle(call: Call) -> Labels:
    """r * r channels become one with r * r times the positions: they are removed together."""
    value, block = call["input"], call["upscale_factor"] ** 2
    dim = len(value.shape) - 3
    if any(other > dim for other in value.axes):
        return move(call)
    axes = dict(value.axes)
    if dim in axes:
        call.couple(axes[dim].ids.reshape(-1, block).T)
        axes[dim] = axes[dim].blocks(block)
    return Label(call.shapes[0], axes)


@rule("channel_shuffle")
def channel_shuffle(call: Call) -> Labels:
    """Groups of channels, interleaved: they must stay equally large, so each loses channels at the same positions."""
    value = call["input"]
    if 1 in value.axes:
        call.couple(value.axes[1].ids.reshape(call["groups"], -1))
    return move(call)
