"""Operators that reduce a dimension to one number, or mix along it."""

from collections.abc import Callable

from prunus.graph.call import Call
from prunus.graph.findings import Kind
from prunus.graph.labels import Axis, Labels
from prunus.graph.rules.table import POINTWISE, find, rule

BLIND = (None, "fro", 1, 2)  # orders of norms that zeros do not change


Change = Callable[[Axis], Axis]


def _same(axis: Axis) -> Axis:
    return axis


@rule("sum", "nansum")
def total(call: Call) -> Labels:
    """A sum: along positions, of each channel independently; over channels, zeros do not change it."""
    return _reduced(call, sees_zeros=False)


@rule("norm", "linalg_vector_norm")
def norm(call: Call) -> Labels:
    """As a sum, for the orders 1 and 2; other orders count zeros."""
    return _reduced(call, sees_zeros=call.get("ord", call.get("p")) not in BLIND)


@rule("mean", "amax", "amin", "var", "std", "var_mean", "std_mean", "prod", "all", "any", "nanmean", "aminmax")
def reduce(call: Call) -> Labels:
    """A reduction: along positions, of each channel independently; over channels, zeros change it."""
    return _reduced(call)


@rule("logsumexp")
def logsumexp(call: Call) -> Labels:
    """As a mean, but the result for zeros is not zero."""
    return _reduced(call, first=call.changed)


@rule("max", "min", "median", "nanmedian", "kthvalue")
def extreme(call: Call) -> Labels:
    """As a mean, with positions as a second output, which are not zero; element-wise for two tensors."""
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
        call.produce(axis)  # a weight that reads channels elsewhere must be zero here: the norm of its rows
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
    """Zeros become non-zero; along the operator's dimension each result depends on all values."""
    for dim in call.dims() & call.input.axes.keys():
        call.approximate(call.input.axes[dim], f"{call.name} over the channels")
    return call.results({dim: call.changed(axis) for dim, axis in call.input.axes.items()})


@rule("cumsum", "cumprod", "cummax", "cummin", "sort", "topk")
def scan(call: Call) -> Labels:
    """Scans along positions, independent per channel: of zeros, the values are zero; returned positions are not."""
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
    """The index of an element: it would change if channels were renumbered."""
    call.freeze_all(f"{call.name} returns positions")
    return call.results()
