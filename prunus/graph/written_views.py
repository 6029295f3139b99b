"""Writes into a part of a tensor, through views of it: the channels of the part become those of the whole."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from prunus.graph.call import Call
from prunus.graph.labels import Axis, Label
from prunus.modules.strides import varying_dims
from prunus.modules.tree import flat, replaced
from prunus.program import Operation, Value
from prunus.program.operators import UNDECLARED

# Operators whose results may be copies, or lie where the tensor's memory layout says.
NOT_PLAIN = UNDECLARED | {
    f"aten::{name}" for name in ("reshape", "flatten", "contiguous", "to", "type_as", "as_strided")
}
OVERLAPPING = "aten::unfold"  # holds some elements more than once, and may leave out others


def viewed(value: Value) -> list[Value]:
    """Return the tensor that owns a value's memory, then the chain of views from it to the value itself."""
    chain = [value]
    while chain[0].maker is not None and _shares_memory(chain[0].maker):
        chain.insert(0, chain[0].maker.operands[0])
    return chain


def sharing(base: Value) -> Iterator[Value]:
    """Yield a value and all values that share its memory, made before or after a write."""
    yield base
    for reader in base.readers:
        if _shares_memory(reader) and reader.operands[0] is base:
            for result in reader.results:
                yield from sharing(result)


def is_plain_view(maker: Operation) -> bool:
    """Return whether an operation surely returns a view, at positions independent of data; a write must keep shapes."""
    return maker.results[0].shape == maker.operands[0].shape if maker.operator.writes else maker.name not in NOT_PLAIN


def _shares_memory(operation: Operation) -> bool:
    return operation.operator.is_view or bool(operation.operator.writes)


def written(call: Call, into: Label, chain: list[Value], part: Label) -> Label | None:
    """Return the label of a tensor once the last of a chain of its views is labelled `part`; None if there is none.

    Each channel dimension of the part must lie along one dimension of the tensor. Its channels are united with the
    tensor's there; a tensor filled with one value gets new channels, whose number must follow a cut, unless the part
    holds this value too. Channels of the tensor that are overwritten with other data are refused.
    """
    if (filled := _refilled(into, chain, part)) is not None:
        return filled
    try:
        places = [_places(into.shape, dim, chain) for dim in range(len(into.shape))]
    except (RuntimeError, TypeError):  # a view that depends on data, or on the tensor's memory layout
        return None
    axes = dict(into.axes)
    for other, axis in part.axes.items():
        dims = [dim for dim, (_, varying) in enumerate(places) if varying == [other]]
        whole = (axes.get(dims[0]) or _filled(call, into, dims[0])) if len(dims) == 1 else None
        if whole is None or places[dims[0]][0].numel() != axis.ids.numel():
            return None
        at = places[dims[0]][0]
        call.join(Axis(whole.ids[at], whole.source[at]), axis)
        axes[dims[0]] = Axis(whole.ids, whole.source.scatter_reduce(0, at, axis.source, "amax"))
    for dim, axis in into.axes.items():
        at, varying = places[dim]
        if not any(varying == [other] for other in part.axes):
            call.freeze(axis.ids[at], "a part of them is overwritten")
    return Label(into.shape, axes)


def _places(shape: tuple[int, ...], dim: int, chain: list[Value]) -> tuple[Tensor, list[int]]:
    """Return the indices along `dim` that the last of a chain of views holds, and its dimensions that they vary in."""
    ones = [1] * len(shape)
    ones[dim] = shape[dim]
    index, known = torch.arange(shape[dim]).view(ones).expand(shape), dict[Value, Tensor]()
    for view in chain[1:]:
        maker = view.maker
        assert maker is not None  # each is a view of the one before
        if not is_plain_view(maker):
            raise TypeError(maker.name)
        if not maker.operator.writes:
            known[maker.operands[0]] = index
            arguments = replaced(maker.arguments, Value, lambda value: known.get(value, value.constant))
            seen = [each for each in flat(maker.operator.named(arguments)) if isinstance(each, Tensor)]
            index = seen[maker.results.index(view)]
    once, varying = varying_dims(index)
    return once.reshape(-1), varying


def _refilled(into: Label, chain: list[Value], part: Label) -> Label | None:
    """Return the label of a tensor that holds one value, also after a write into a part of it or all; else None."""
    value, before = part.single, into.single
    plain = all(view.maker and is_plain_view(view.maker) and view.maker.name != OVERLAPPING for view in chain[1:])
    whole = plain and math.prod(part.shape) == math.prod(into.shape)
    if value is None or not (whole or (before is not None and torch.equal(before, value))):
        return None
    return Label(into.shape, data=value.expand(into.shape))


def _filled(call: Call, into: Label, dim: int) -> Axis | None:
    """Return new channels along a dimension of a tensor that was filled with one value, else None."""
    if into.data is None or not into.uniform(dim):
        return None
    axis = call.zeros(dim, into.shape[dim])
    return axis if into.is_zero else call.changed(axis)
