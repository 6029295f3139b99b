"""Operators that gather a whole dimension into one number, or mix along it."""

from typing import Any

from prunus.graph.call import Call
from prunus.graph.labels import Axis, Label
from prunus.graph.rules.table import POINTWISE, find, rule

ZERO_OF_ZEROS = tuple(f"aten::{name}" for name in ("cumsum", "cumprod", "cummax", "cummin", "sort", "topk"))
POSITIONS = ("aten::max", "aten::min", "aten::median", "aten::nanmedian", "aten::kthvalue")  # as a second output
NORMS = ("aten::norm", "aten::linalg_vector_norm")


@rule("sum", "mean", "amax", "amin", "max", "min", "var", "std", "var_mean", "std_mean", "prod", "all", "any")
@rule("norm", "linalg_vector_norm", "logsumexp", "nanmean", "nansum", "median", "nanmedian", "kthvalue", "aminmax")
def reduce(call: Call) -> Any:
    """Along positions each channel is reduced by itself; sums and norms over channels do not see zeros,
    the others do."""
    if len(call.labels) > 1:  # the larger of two tensors, element by element
        return find(POINTWISE, call.target)(call)
    value: Label = call.args[0]
    rank = len(value.shape)
    dims, keep = _dims(call, rank)
    axes = {}
    for dim, axis in value.axes.items():
        if dim in dims:
            _reduced(call, axis)
        else:
            new = dim if keep else dim - sum(other < dim for other in dims)
            axes[new] = call.changed(axis) if call.name == "aten::logsumexp" else axis
    placed = {d: Axis(axis.ids, axis.source.clamp(min=call.number)) for d, axis in axes.items()}
    given = [axes, *[placed if call.name in POSITIONS else axes] * (len(call.shapes) - 1)]
    left = rank if keep else rank - len(dims)
    labels = [Label(shape, one if len(shape) == left else {}) for shape, one in zip(call.shapes, given, strict=True)]
    return call.outputs(labels)


def _reduced(call: Call, axis: Axis) -> None:
    """A sum does not see zeros: those of a weight that reads channels must be zero too (the norm of a row)."""
    call.produce(axis)
    if call.name in ("aten::sum", "aten::nansum") or (
        call.name in NORMS and call.arg(1, "ord", 2) in (None, "fro", 1, 2)
    ):
        call.blame(axis.ids, axis.source)
    else:
        call.approximate(axis, f"{call.name} over the channels")


def _dims(call: Call, rank: int) -> tuple[set[int], bool]:
    position = 2 if call.name in (*NORMS, "aten::kthvalue") else 1
    dims = call.arg(position, "dim")
    keep = call.arg(position + 1, "keepdim", False)
    if call.name in ("aten::var", "aten::std", "aten::var_mean", "aten::std_mean"):
        keep = bool(call.kwargs.get("keepdim", call.args[3] if len(call.args) > 3 else False))
    if dims is None or isinstance(dims, bool | Label):
        return set(range(rank)), False
    dims = dims if isinstance(dims, list | tuple) else [dims]
    return {d % rank for d in dims} or set(range(rank)), bool(keep)


@rule(
    "softmax",
    "_softmax",
    "log_softmax",
    "_log_softmax",
    "cumsum",
    "cumprod",
    "sort",
    "topk",
    "argsort",
    "cummax",
    "cummin",
    "logcumsumexp",
)
def mix(call: Call) -> Any:
    """Along positions each channel is treated by itself, and sums and orders of zeros are zeros; along channels, each
    depends on all."""
    value: Label = call.args[0]
    position = 2 if call.name == "aten::topk" else 1
    dim = call.arg(position, "dim", -1) % len(value.shape)
    axes = dict(value.axes)
    if dim in axes:
        axis = axes.pop(dim)
        if "softmax" in call.name:
            call.approximate(axis, f"{call.name} over the channels")
            axes[dim] = Axis(axis.ids, axis.source.clamp(min=call.number))
        else:
            call.freeze(axis, f"{call.name} over the channels")
    other = {d: Axis(a.ids, a.source.clamp(min=call.number)) for d, a in axes.items()}
    first = axes if call.name in ZERO_OF_ZEROS else other
    return call.outputs([Label(shape, other if number else first) for number, shape in enumerate(call.shapes)])


@rule("argmax", "argmin")
def pick(call: Call) -> Any:
    """A number of an index: channels cannot be renumbered under it."""
    for axis in call.args[0].axes.values():
        call.freeze(axis, f"{call.name} returns positions")
    return call.plain()
