"""Operators that gather a whole dimension into one number, or mix along it."""

from typing import Any

from prunus.graph.call import Call
from prunus.graph.findings import Kind
from prunus.graph.labels import Label, Labels
from prunus.graph.rules.table import POINTWISE, find, rule

BLIND = (None, "fro", 1, 2)  # orders of norms that do not see zeros


@rule("sum", "nansum")
def total(call: Call) -> Labels:
    """Along positions each channel is summed by itself; a sum over channels does not see zeros."""
    return _reduced(call, sees_zeros=False)


@rule("norm", "linalg_vector_norm")
def norm(call: Call) -> Labels:
    """As a sum, for the orders 1 and 2."""
    return _reduced(call, sees_zeros=call.get("ord", call.get("p")) not in BLIND)


@rule("mean", "amax", "amin", "var", "std", "var_mean", "std_mean", "prod", "all", "any", "nanmean", "aminmax")
def reduce(call: Call) -> Labels:
    """Along positions each channel is reduced by itself; over channels zeros are seen."""
    return _reduced(call)


@rule("logsumexp")
def logsumexp(call: Call) -> Labels:
    """As a mean, but that of zeros is not zero."""
    return _reduced(call, first=call.changed)


@rule("max", "min", "median", "nanmedian", "kthvalue")
def extreme(call: Call) -> Labels:
    """As a mean, with positions as a second output, which are not zero; of two tensors element by element."""
    if len(call.labels) > 1:
        return find(POINTWISE, call.operation.operator)(call)
    return _reduced(call, second=call.changed)


def _reduced(call: Call, *, sees_zeros: bool = True, first: Any = None, second: Any = None) -> Labels:
    """Reduce the dimensions that the operator names; `first` and `second` change the channels of its outputs."""
    value = call.input
    rank, dims = len(value.shape), call.get("dim")
    dims = dims if isinstance(dims, list | tuple) else [] if dims is None else [dims]
    reduced = {d % rank for d in dims} or set(range(rank))
    keep = bool(call.get("keepdim", False))
    axes = {}
    for dim, axis in value.axes.items():
        if dim not in reduced:
            axes[dim if keep else dim - sum(other < dim for other in reduced)] = axis
            continue
        call.produce(axis)  # zeros of a weight that reads channels must be zero too: the norm of a row
        if sees_zeros:
            call.approximate(axis, f"{call.name} over the channels")
        else:
            call.blame(axis.ids, axis.source)
            maker = call.operation.operands[0].maker
            if maker is not None and maker.name == "aten::mul" and len(maker.operands) > 1:  # an Einstein sum
                call.findings.mark(Kind.CONTRACTED, axis)
    left = rank if keep else rank - len(reduced)
    labels = []
    for number, shape in enumerate(call.shapes):
        change = (second if number else first) or (lambda axis: axis)
        labels.append(Label(shape, {d: change(a) for d, a in axes.items()} if len(shape) == left else {}))
    return call.outputs(labels)


@rule("softmax", "_softmax", "log_softmax", "_log_softmax")
def softmax(call: Call) -> Labels:
    """Over positions or channels, zeros become numbers that are not; each depends on all."""
    value, dim = call.input, call["dim"] % len(call.input.shape)
    call.approximate(value.axes.get(dim), f"{call.name} over the channels")
    return Label(call.shapes[0], {d: call.changed(axis) for d, axis in value.axes.items()})


@rule("cumsum", "cumprod", "cummax", "cummin", "sort", "topk", "argsort", "logcumsumexp")
def scan(call: Call) -> Labels:
    """Along positions each channel is treated by itself, and sums and orders of zeros are zeros; positions, and
    logarithms of sums, are not."""
    value, dim = call.input, call["dim"] % len(call.input.shape)
    call.freeze(value.axes.get(dim), f"{call.name} over the channels")
    axes = {d: axis for d, axis in value.axes.items() if d != dim}
    other = {d: call.changed(axis) for d, axis in axes.items()}
    first = other if call.name in ("aten::argsort", "aten::logcumsumexp") else axes
    return call.outputs([Label(shape, other if number else first) for number, shape in enumerate(call.shapes)])


@rule("argmax", "argmin")
def pick(call: Call) -> Labels:
    """A number of an index: channels cannot be renumbered under it."""
    call.freeze_all(f"{call.name} returns positions")
    return call.plain()
