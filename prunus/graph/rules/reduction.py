"""Operators that gather a whole dimension into one number, or mix along it."""

from collections.abc import Callable

from prunus.graph.call import Call
from prunus.graph.findings import Kind
from prunus.graph.labels import Axis, Labels
from prunus.graph.rules.table import POINTWISE, find, rule

BLIND = (None, "fro", 1, 2)  # orders of norms that do not see zeros


Change = Callable[[Axis], Axis]


def _same(axis: Axis) -> Axis:
    return axis


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


def _reduced(call: Call, *, sees_zeros: bool = True, first: Change = _same, second: Change = _same) -> Labels:
    """Reduce the dimensions that the operator names; `first` and `second` change the channels of its outputs."""
    reduced, keep, axes = call.dims(), bool(call.get("keepdim", False)), {}
    for dim, axis in call.input.axes.items():
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
    return call.results(*({dim: change(axis) for dim, axis in axes.items()} for change in (first, second)))


@rule("softmax", "_softmax", "log_softmax", "_log_softmax")
def softmax(call: Call) -> Labels:
    """Over positions or channels, zeros become numbers that are not; each depends on all."""
    for dim in call.dims() & call.input.axes.keys():
        call.approximate(call.input.axes[dim], f"{call.name} over the channels")
    return call.results({dim: call.changed(axis) for dim, axis in call.input.axes.items()})


@rule("cumsum", "cumprod", "cummax", "cummin", "sort", "topk")
def scan(call: Call) -> Labels:
    """Along positions each channel is treated by itself, and sums and orders of zeros are zeros; positions are not."""
    return _scanned(call, _same)


@rule("argsort", "logcumsumexp")
def scan_of_others(call: Call) -> Labels:
    """As `scan`, but positions, and logarithms of sums, are not zero."""
    return _scanned(call, call.changed)


def _scanned(call: Call, first: Change) -> Labels:
    for dim in call.dims() & call.input.axes.keys():
        call.freeze(call.input.axes[dim], f"{call.name} over the channels")
    axes = {dim: axis for dim, axis in call.input.axes.items() if dim not in call.dims()}
    return call.results(*({dim: change(axis) for dim, axis in axes.items()} for change in (first, call.changed)))


@rule("argmax", "argmin")
def pick(call: Call) -> Labels:
    """A number of an index: channels cannot be renumbered under it."""
    call.freeze_all(f"{call.name} returns positions")
    return call.results()
