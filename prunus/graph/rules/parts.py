"""Operators that take parts of a dimension: along channels the positions are written down."""

import math
from typing import Any

import torch

from prunus.graph.call import Call
from prunus.graph.labels import Axis, Label
from prunus.graph.rules.movement import move, moved, put
from prunus.graph.rules.table import rule

WIDE = frozenset({"aten::gather", "aten::take_along_dim"})  # their index has all dimensions of what is looked up


@rule("chunk", "tensor_split", "unsafe_chunk")
def chunk(call: Call) -> Any:
    """Equal parts stay equal only if each loses as much: channels at one position of all parts go together."""
    value, parts, dim = call.args[0], call.args[1], call.arg(2, "dim", 0) % len(call.args[0].shape)
    if dim not in value.axes:
        return move(call)
    ids = value.axes[dim].ids
    if isinstance(parts, int) and ids.numel() % parts == 0:
        call.couple(ids.reshape(parts, -1))
    else:
        call.freeze(ids, "parts of unequal size are taken")
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
        sizes = {shape[dim] for shape in call.shapes}
        unlike = isinstance(call.arg(1, "split_sizes"), list | tuple) and len(sizes) > 1
        if not unlike:
            call.couple(value.axes[dim].ids.reshape(size // unit, unit))  # unlike parts have a number each
        for label in result if isinstance(result, list) else [result]:
            if dim in label.axes:
                call.written(label.axes[dim], unlike=unlike)
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
    """Single positions of a dimension: channels along it stay, and what comes out is of a fixed size there."""
    value: Label = call.args[0]
    touched = _touched(call)
    for dim, axis in value.axes.items():
        call.produce(axis)  # a weight that others read is a value here
        if dim in touched:
            call.freeze(axis, f"{call.name} works at fixed positions")
            call.couple(axis.ids.reshape(-1, 1))  # they stay as one
        elif call.name in WIDE:
            as_wide(call, axis, call.labels[1], dim)
    known = all(label.data is not None for label in call.labels[1:])
    axes: list[dict[int, Axis]] = [{} for _ in call.shapes]
    for dim in sorted(value.axes.keys() - touched):
        at = _carried(call, dim) if known or _looks_up_rows(call) else None
        if at is not None:
            for found in axes:
                put(call, found, at, value.axes[dim])
        elif known and value.data is None:
            moved(call, dim, axes)
        else:
            call.freeze(value.axes[dim], f"{call.name} works at positions that the data decide")
    for label in call.labels[1:]:
        for axis in label.axes.values():
            call.freeze(axis, f"{call.name} looks up positions with it")
    return call.outputs([Label(shape, found) for shape, found in zip(call.shapes, axes, strict=True)])


def _looks_up_rows(call: Call) -> bool:
    """Whether positions that the data decide are looked up alike for all channels."""
    indices = call.labels[1:]
    whole = call.name in ("aten::index", "aten::index_select")
    return whole and not any(label.axes or call.dtypes[id(label)] == torch.bool for label in indices)


def as_wide(call: Call, axis: Axis, index: Label, dim: int) -> None:
    """An index has a size of its own along a dimension that it does not look up: that of the channels must follow."""
    size = index.shape[dim]
    if size == axis.ids.numel() and index.uniform(dim):
        call.written(axis, settled=False)
    elif size > 1 or call.name != "aten::take_along_dim":  # which alone spreads a size of one over all channels
        call.freeze(axis, f"{call.name} has an index of its own for each channel")


def _carried(call: Call, dim: int) -> int | None:
    """Return where a dimension that is not indexed comes to lie; None where only a run on labels tells."""
    value: Label = call.args[0]
    touched = _touched(call)
    if call.name in ("aten::select", "aten::unbind"):
        return dim - (dim > min(touched))
    if call.name != "aten::index":
        return dim if call.shapes[0][dim] == value.shape[dim] else None
    if any(index is not None and not call.dtypes[id(index)].is_signed for index in call.args[1]):  # a mask
        return None
    sizes = [2 if other == dim else 1 for other in range(len(value.shape))]
    zeros = [index and torch.zeros([1] * len(index.shape), dtype=torch.long) for index in call.args[1]]
    return list(call.target(torch.empty(sizes), zeros).shape).index(2)


def _touched(call: Call) -> set[int]:
    """Return the dimensions that the operator indexes."""
    value: Label = call.args[0]
    rank = len(value.shape)
    if call.name == "aten::index":
        return {dim for dim, index in enumerate(call.args[1]) if index is not None}
    if call.name == "aten::roll":
        dims = call.arg(2, "dims", ())
    elif call.name == "aten::take_along_dim":
        dims = [dim for dim in (call.arg(2, "dim"),) if dim is not None]
    else:
        dims = [call.arg(2 if "split" in call.name else 1, "dim", 0)]
    return {dim % rank for dim in dims} or set(range(rank))  # of no dimension: as if it were flat


def _takes_all(call: Call, dim: int) -> bool:
    """Whether a slice keeps the whole dimension (`x[:, :]`)."""
    return call.name == "aten::slice" and call.shapes[0][dim] == call.args[0].shape[dim]
