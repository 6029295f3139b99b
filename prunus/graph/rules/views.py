"""Operators that give the same data another shape: hard-coded sizes must still be right after a cut."""

from collections.abc import Sequence

from prunus.graph.call import Call
from prunus.graph.labels import Axis, Label, Labels, spread
from prunus.graph.rules.movement import ZERO, move
from prunus.graph.rules.placement import place
from prunus.graph.rules.table import rule, unknown


@rule("view", "reshape", "_unsafe_view", "unflatten", "_reshape_alias")
def view(call: Call) -> Labels:
    """Data movement; sizes that are not inferred (-1) are hard-coded."""
    if "dtype" in call.arguments:  # the same memory read as other numbers
        return unknown(call)
    result, sizes = flatten(call), call.get("sizes") or call.get("size") or call.get("shape") or ()
    inferred = -1 in sizes
    first = call.dims().pop() if "dim" in call.arguments else 0  # the dimension that `sizes` begin at
    for dim, axis in result.axes.items():
        if not (inferred and 0 <= dim - first < len(sizes) and sizes[dim - first] == -1):
            alike = [d for d, size in enumerate(call.shapes[0]) if size == axis.ids.numel()]
            call.hard_coded(axis, nth=(alike.index(dim), len(alike)))
    return result


@rule("flatten")
def flatten(call: Call) -> Label:
    """Data movement; each block of dimensions that is reshaped independently is placed on its own."""
    value = call.input
    axes: dict[int, Axis] = {}
    for dim, axis in value.axes.items():
        (start, end), (first, last) = _block(value.shape, call.shapes[0], dim)
        small = Label(value.shape[start:end], {dim - start: axis})
        shape = call.shapes[0][first:last]
        ids = small.expanded(dim - start, "ids").reshape(shape)
        zero = not bool(axis.source.any())
        source = ZERO.expand(shape) if zero else small.expanded(dim - start, "source").reshape(shape)
        place(call, ids, source, axes, first)
    return Label(call.shapes[0], axes)


def _block(shape: Sequence[int], new: Sequence[int], dim: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the ranges of dimensions, before and after, of the smallest independently reshaped block with `dim`."""
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


@rule("expand", "broadcast_to", "repeat", "tile")
def expand(call: Call) -> Labels:
    """Data movement; sizes that are not kept (-1) are hard-coded. A dimension over which one value is repeated may be
    as wide as the channels that it meets."""
    result, sizes = _expanded(call, {}), call.get("size")
    for dim, axis in result.axes.items() if sizes is not None else ():
        if sizes[dim] != -1:
            call.hard_coded(axis)
    return result


@rule("expand_as")
def expand_as(call: Call) -> Labels:
    """Values repeated over another tensor's channels: as many as these channels, and not zero."""
    value, model = call["input"], call["other"]
    offset, wide = len(model.shape) - len(value.shape), {}
    for dim, axis in model.axes.items():
        if dim < offset or value.shape[dim - offset] == 1 < model.shape[dim]:
            wide[dim] = call.changed(Axis.of(axis.ids))
    return _expanded(call, wide)


def _expanded(call: Call, wide: dict[int, Axis]) -> Label:
    result = move(call)
    assert isinstance(result, Label)  # one output
    axes = result.axes | wide
    return Label(result.shape, axes, alike=spread([call.input], result.shape) - axes.keys())
