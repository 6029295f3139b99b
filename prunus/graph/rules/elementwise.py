"""Element-wise operators."""

import itertools

import torch
from torch import Tensor

from prunus.graph.call import Call
from prunus.graph.findings import Kind
from prunus.graph.labels import Axis, Label, Labels, spread
from prunus.graph.rules.table import POINTWISE, rule

PROBES = (2.3, -3.7, 0.41, -1e4, 1e4)  # stand for any value but zero; they differ in size for clamp, remainder, ...


@rule("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout", "native_dropout")
@rule("relu", "relu6", "hardtanh", "hardswish", "hardsigmoid", "silu", "mish", "gelu", "selu", "celu", "elu")
@rule("leaky_relu", "log_sigmoid", "softplus", "where", "masked_fill", "clamp", "clip", "clamp_min", "clamp_max")
@rule("rsub", "type_as", "to", "_to_copy", "square", "float_power", "copy", "fill", "complex", "polar", POINTWISE)
def elementwise(call: Call) -> Labels:
    """z = f(x, y, ...), broadcast: unite the channels, and run f on zero to determine whether zero stays zero."""
    operands = call.labels
    shape = call.shapes[0]
    if (value := _constant(call, operands)) is not None:
        return Label(shape, data=value.expand(shape))
    axes = {}
    for dim in range(len(shape)):
        axis = _joined(call, operands, dim - len(shape), shape[dim])
        if axis is not None:
            axes[dim] = axis
    alike = spread(operands, shape) - axes.keys() if any(each.alike for each in operands) else frozenset[int]()
    same = [out == shape for out in call.shapes]
    labels = [Label(o, axes, alike=alike) if full else Label(o) for o, full in zip(call.shapes, same, strict=True)]
    return call.outputs(labels)


def _constant(call: Call, operands: list[Label]) -> Tensor | None:
    """Return the value of all elements, shape [], where each operand holds one known value; else None."""
    if call.operation.operator.random or any(label.data is None for label in operands):
        return None
    known = {id(label): value for label in operands if (value := label.single) is not None}
    if not operands or len(known) < len(set(map(id, operands))):
        return None
    values = call.run(lambda label: known[id(label)].clone())
    return values[0] if len(values) == 1 else None


def _joined(call: Call, operands: list[Label], dim: int, size: int) -> Axis | None:
    """Unite the operands' axes at the negative dimension `dim`."""
    sized = [x for x in operands if -dim <= len(x.shape) and x.shape[dim] == size]
    present = [axis for x in sized if (axis := x.behind(dim)) is not None]
    if size == 1:  # operands without channels broadcast over the one channel
        sized = [x for x in sized if x.behind(dim) is not None]
    if not present:
        return None
    for value in present if len(present) > 1 else []:  # a weight is a value here, even if it reads channels elsewhere
        call.produce(value)
    for other in sized:
        call.join(present[0], call.as_wide(other, len(other.shape) + dim, present[0]))
    return Axis(present[0].ids, _sources(call, operands, dim, size))


def _sources(call: Call, operands: list[Label], dim: int, size: int) -> Tensor:
    """Return 0 where the result is zero when the channel's producers are, else the number of the operation to blame."""
    found = [
        axis if axis is not None and axis.ids.numel() == size else None for axis in (x.behind(dim) for x in operands)
    ]
    nowhere = torch.zeros(size, dtype=torch.long)
    old = torch.stack([nowhere if axis is None else axis.source for axis in found])
    table = torch.stack([_nonzero(x, axis).expand(size) for x, axis in zip(operands, found, strict=True)])
    if bool((table == table[:, :1]).all()):  # usually all channels are in the same state
        patterns, index = table[:, :1], torch.zeros(size, dtype=torch.long)
    else:
        patterns, index = torch.unique(table, dim=1, return_inverse=True)
    kept = [keeps_zero(call, operands, tuple(pattern)) for pattern in patterns.T.tolist()]
    result = torch.where(torch.tensor(kept)[index], 0, call.number)
    first = old.gather(0, (old != 0).long().argmax(0, keepdim=True))[0]  # source of the first operand that is not zero
    return torch.where((result != 0) & (first != 0), first, result)


def _nonzero(label: Label, axis: Axis | None) -> Tensor:
    """Return where an operand is not known to be zero: bool [size] or []."""
    if axis is None:
        return torch.tensor(not label.is_zero)
    return axis.source != 0


def _probes(dtype: torch.dtype) -> tuple[float, ...]:
    if dtype == torch.bool:
        return (1.0, 0.0)
    return PROBES if dtype.is_signed else (2.0, 3.0)


def keeps_zero(call: Call, operands: list[Label], nonzero: tuple[bool, ...]) -> bool:
    """Run the operator on zeros, and on probes for the operands that are `nonzero`; return whether the result is zero.

    Return False where no operand is zero, and for a comparison with a non-zero operand, which may turn out either way.
    """
    if all(nonzero):
        return False
    dtypes = [label.dtype for label in operands]
    choices = [_probes(dtype) if flag else (0.0,) for flag, dtype in zip(nonzero, dtypes, strict=True)]
    columns = zip(*itertools.product(*choices), strict=True)
    filled = [torch.tensor(column).to(dtype) for column, dtype in zip(columns, dtypes, strict=True)]
    stand_in = {id(label): tensor for label, tensor in zip(operands, filled, strict=True)}
    try:
        result = call.run(lambda label: stand_in[id(label)].clone())
    except (RuntimeError, TypeError, ValueError):
        return False
    if result[0].dtype == torch.bool and any(nonzero) and not call.name.endswith("_and"):
        return False
    return bool((result[0] == 0).all())


@rule("clone", "contiguous", "alias", "detach", "lift_fresh", "lift_fresh_copy", "requires_grad", "lift")
def identity(call: Call) -> Label:
    """The same values as the input."""
    return call.input


@rule("prelu")
def prelu(call: Call) -> Label:
    """max(0, x) + a min(0, x), a [channels] along dimension 1, or [1]."""
    value, slope = call["input"], call["weight"]
    if slope.shape[0] > 1:
        call.join(value.axes.get(1), slope.axes.get(0))
        call.findings.mark(Kind.STATISTIC, slope.axes.get(0))  # prelu(0) = 0 for any slope
    return Label(value.shape, value.axes)


@rule("glu")
def glu(call: Call) -> Label:
    """a sigmoid(b), where [a, b] are the halves along a dimension: the halves' channels are removed in pairs."""
    value, dim = call.input, call["dim"] % len(call.input.shape)
    axes = dict(value.axes)
    if dim in axes:
        ids, source = axes[dim].ids, axes[dim].source
        call.couple(ids.reshape(2, -1))
        axes[dim] = Axis(ids[: ids.numel() // 2], source[: ids.numel() // 2])
    return Label(call.shapes[0], axes)
