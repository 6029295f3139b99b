"""Operators that take parts of a dimension: along channels their positions are hard-coded."""

import math
from collections.abc import Callable

import torch

from prunus.graph.call import Call
from prunus.graph.labels import Axis, Label, Labels
from prunus.graph.rules.movement import move, moved
from prunus.graph.rules.placement import put
from prunus.graph.rules.table import rule


@rule("slice", "narrow")
def section(call: Call) -> Labels:
    """A consecutive part of a dimension."""
    value, dim = call.input, call["dim"] % len(call.input.shape)
    size, length = value.shape[dim], call.shapes[0][dim]
    if dim not in value.axes or (length == size and "end" in call.arguments):  # `x[:, :]` takes all
        return move(call)
    if call.get("step", 1) != 1:
        call.freeze(value.axes[dim], "every n-th channel is taken")
        return move(call)
    start = call["start"]
    at = start if isinstance(start, int) else 0 if start is None else int(start.data)
    return _hard_coded_parts(call, dim, math.gcd(size, at % (size + 1), length), unequal=False)


@rule("split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes")
def split(call: Call) -> Labels:
    """Consecutive parts of a dimension, equal or not."""
    dim = call["dim"] % len(call.input.shape)
    sizes = [shape[dim] for shape in call.shapes]
    listed = isinstance(call.get("split_sizes", call.get("split_size")), list | tuple)
    return _hard_coded_parts(call, dim, math.gcd(*sizes), unequal=listed and len(set(sizes)) > 1)


@rule("chunk", "tensor_split", "unsafe_chunk")
def chunk(call: Call) -> Labels:
    """Equal parts stay equal only if each loses as many: channels at the same position of all are removed together."""
    dim = call["dim"] % len(call.input.shape)
    parts = call.get("chunks", call.get("sections"))
    if isinstance(parts, int) and call.input.shape[dim] % parts == 0:
        return _hard_coded_parts(call, dim, call.input.shape[dim] // parts, follows=True)
    call.freeze(call.input.axes.get(dim), "parts of unequal size are taken")
    return move(call)


def _hard_coded_parts(call: Call, dim: int, unit: int, *, unequal: bool = False, follows: bool | None = None) -> Labels:
    """Move the parts; along channels, declare their sizes hard-coded, to be tried at another width unless the code
    `follows`. Blocks of `unit` channels lose the same positions, except that `unequal` parts shrink independently."""
    result = move(call)
    if dim in call.input.axes and not unequal:
        call.couple(call.input.axes[dim].ids.reshape(-1, unit))
    for label in result if isinstance(result, list) else [result]:
        if dim in label.axes:
            call.hard_coded(label.axes[dim], unequal=unequal, follows=follows)
    return result


@rule("select", "unbind")
def select(call: Call) -> Labels:
    """Single positions of a dimension, which is dropped."""
    (dim,) = call.dims()
    return _picked(call, {dim}, lambda other: other - (other > dim))


@rule("index_select", "roll")
def index_select(call: Call) -> Labels:
    """Rows of a dimension in another order, or some of them."""
    return _picked(call, call.dims(), lambda other: other, by_rows=True)


@rule("gather")
def gather(call: Call) -> Labels:
    """A lookup with an index per element: the index has all dimensions of the input."""
    return _gathered(call, spreads=False)


@rule("take_along_dim")
def take_along_dim(call: Call) -> Labels:
    """As `gather`; an index of size one broadcasts."""
    return _gathered(call, spreads=True)


def _gathered(call: Call, *, spreads: bool) -> Labels:
    value, index = call.labels[:2]
    others = value.axes.keys() - call.dims()
    for dim in others:
        if not spreads or index.shape[dim] > 1:
            index_as_wide(call, value.axes[dim], index, dim)

    def carried(dim: int) -> int | None:
        return dim if call.shapes[0][dim] == value.shape[dim] else None

    return _picked(call, call.dims(), carried, by_rows=all(index.uniform(dim) for dim in others))


@rule("index")
def index(call: Call) -> Labels:
    """Positions along some dimensions, the same for all indices of the others."""
    touched = {dim for dim, each in enumerate(call["indices"]) if each is not None}
    sizes = [1] * len(call.input.shape)
    indices = [each and torch.zeros([1] * len(each.shape), dtype=torch.long) for each in call["indices"]]

    def carried(dim: int) -> int:
        tall = [2 if other == dim else size for other, size in enumerate(sizes)]
        return list(torch.ops.aten.index.Tensor(torch.empty(tall), indices).shape).index(2)

    return _picked(call, touched, carried, by_rows=True)


def _picked(call: Call, touched: set[int], carried: Callable[[int], int | None], *, by_rows: bool = False) -> Labels:
    """Pick a fixed number of positions along the dimensions `touched`; channels along these are refused.

    Args:
        call: the operator.
        touched: the dimensions along which positions are picked.
        carried: returns where another dimension lies in the output, None where only a run on labels shows it.
        by_rows: whether positions that depend on data are the same for all channels, if they hold none themselves.
    """
    value, others = call.input, call.labels[1:]
    for dim, axis in value.axes.items():
        call.produce(axis)  # a weight is a value here, even if it reads channels elsewhere
        if dim in touched:
            call.freeze(axis, f"{call.name} works at fixed positions")
            call.couple(axis.ids.reshape(-1, 1))  # one group, which stays
    known = all(label.data is not None for label in others)
    alike = known or (by_rows and not any(label.axes for label in others))
    axes: list[dict[int, Axis]] = [{} for _ in call.shapes]
    for dim in sorted(value.axes.keys() - touched):
        at = carried(dim) if alike else None
        if at is not None:
            for found in axes:
                put(call, found, at, value.axes[dim])
        elif known and value.data is None:
            moved(call, dim, axes, steered=True)
        else:
            call.freeze(value.axes[dim], f"{call.name} works at positions that depend on the data")
    for label in others:
        for axis in label.axes.values():
            call.freeze(axis, f"{call.name} looks up positions with it")
    return call.results(*axes)


def index_as_wide(call: Call, axis: Axis, index: Label, dim: int) -> None:
    """Declare an index's own size along channels as hard-coded; refuse channels along which the index differs."""
    if index.shape[dim] == axis.ids.numel() and index.uniform(dim):
        call.hard_coded(axis, follows=False)
    else:
        call.freeze(axis, f"{call.name} has an index of its own for each channel")
