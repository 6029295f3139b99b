"""Compare a network at another width with the prediction of its labels, or in its two modes."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from prunus.graph.ids import NONE
from prunus.graph.labels import Label
from prunus.graph.walk import LabelledProgram
from prunus.modules.strides import same_values
from prunus.modules.tree import flat
from prunus.program import Operation, Place, Program, Value

NOISE = ("empty", "rand", "bernoulli")  # parts of the names of operators that make random numbers

# Operators whose arguments only place data: the labels of their outputs show whether these arguments are right.
_MOVES = """
    view reshape _unsafe_view flatten unflatten expand expand_as broadcast_to affine_grid_generator repeat tile slice
    narrow select split split_with_sizes chunk unsafe_split unsafe_chunk layer_norm group_norm channel_shuffle
    conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d
    zeros ones full empty new_zeros new_ones new_full new_empty
"""
MOVES = frozenset(_MOVES.split())

GROUPED = frozenset(["aten::group_norm", "aten::native_group_norm"])

# Operators whose results do not depend on how often a value is repeated.
_SPREADS = """
    expand repeat tile gather cat where clone contiguous to _to_copy type_as copy
    fill zero zeros_like ones_like full_like empty_like
"""
SPREADS = frozenset(_SPREADS.split())


@dataclasses.dataclass(frozen=True)
class Mismatch:
    """A place where the narrower network differs from the prediction; `operation` is None where it is not known."""

    reason: str
    place: Place
    operation: Operation | None = None

    @property
    def told(self) -> str:
        """The reason with its line, or with the module where no line is known."""
        at = self.place.line.rpartition("/")[2] or (f"in {self.place.module}" if self.place.module else "")
        return f"{self.reason} ({at})" if at else self.reason


def same_code(first: Program, second: Program) -> bool:
    """Return whether a network calls the same operators in two modes, random masks aside."""
    return _calls(first) == _calls(second)


def _calls(program: Program) -> list[Any]:
    """Return the operators called, with their numeric arguments and the shapes of their outputs.

    A multiplication of a tensor with random numbers is left out: it is some kind of dropout.
    """
    calls, noise = list[Any](), set[Value]()
    for operation in program.operations:
        clean = [operand for operand in operation.operands if operand not in noise]
        if any(word in operation.name for word in NOISE) or (operation.operands and not clean):
            noise.update(operation.results)
        elif len(clean) == len(operation.operands) or "mul" not in operation.name:
            numbers = tuple(number for number in _numbers(operation) if type(number) is not str)
            calls.append((operation.name, numbers, tuple(value.shape for value in operation.results)))
    return [*calls, *(value.shape for value in program.outputs)]


def compare(
    wide: LabelledProgram, narrow: LabelledProgram, alive: Tensor, roots: Tensor
) -> tuple[Mismatch | None, tuple[Mismatch, ...]]:
    """Compare a network, operation by operation, with itself cut to the ids `alive`, bool [num_ids].

    Operators, arguments and the channels along every dimension must be as the labels predict; `roots` is the class of
    each id. Return the first mismatch, and the operations before it that take a number computed from the width.
    """
    changed: list[Mismatch] = []
    for a, b in zip(wide.program.operations, narrow.program.operations, strict=False):
        place = Place(a.module, a.line)
        if a.operator is not b.operator:
            return Mismatch(f"{a.name} becomes {b.name} at another width", place, a), tuple(changed)
        if text := _loose(a, b, wide) or _regrouped(a, b, wide, alive):
            return Mismatch(text, place, a), tuple(changed)
        computed = a.name.partition("::")[2] not in MOVES and list(_numbers(a)) != list(_numbers(b))
        for first, second in _pairs(a, b):
            x, y = wide.labels[first], narrow.labels[second]
            if text := _difference(x, y, alive, roots):
                return Mismatch(f"{a.name} {text}", place, a), tuple(changed)
            computed = computed or not same_values(x.data, y.data)
        if computed:
            changed.append(Mismatch(f"a number in {a.name} is computed from the width", place, a))
    if len(wide.program.operations) != len(narrow.program.operations):
        return Mismatch("the code calls a different number of operators at another width", Place()), tuple(changed)
    return None, tuple(changed)


def _loose(a: Operation, b: Operation, wide: LabelledProgram) -> str:
    """Return an error where an operator's result depends on how often a value was repeated over the width."""
    known = all(wide.labels[operand].data is not None for operand in a.operands)
    if a.operator.pointwise or a.name.partition("::")[2] in SPREADS or (known and a.operator.is_view):
        return ""
    if _depthwise(a) and _depthwise(b):
        return ""
    for first, second in zip(a.operands, b.operands, strict=False):
        for dim, (size, other) in enumerate(zip(first.shape, second.shape, strict=False)):
            if size != other and first.constant is None and dim not in wide.labels[first].axes:
                return f"{a.name} works on {size} equal values, which become {other} at another width"
    return ""


def _depthwise(operation: Operation) -> bool:
    """Return whether each output channel of a convolution reads one input channel with one kernel."""
    weight, groups = operation.arguments.get("weight"), operation.arguments.get("groups")
    return isinstance(weight, Value) and weight.shape[:2] == (groups, 1)


def _regrouped(a: Operation, b: Operation, wide: LabelledProgram, alive: Tensor) -> str:
    """Return an error where a normalisation takes another number of groups than are left: labels do not show it."""
    if a.name not in GROUPED or (axis := wide.labels[a.operands[0]].axes.get(1)) is None:
        return ""
    groups, found = (each.arguments.get("num_groups", each.arguments.get("group")) for each in (a, b))
    left = int(alive[axis.ids].reshape(groups, -1).any(1).sum()) if isinstance(groups, int) else 0
    return "" if found == left else f"{a.name} takes {found} groups at another width, where {left} are left"


def _pairs(a: Operation, b: Operation) -> Iterator[tuple[Value, Value]]:
    """Yield the pairs of constants that two calls of an operator take, and of their outputs."""
    for first, second in zip(a.operands, b.operands, strict=False):
        if first.constant is not None or second.constant is not None:
            yield first, second
    yield from zip(a.results, b.results, strict=False)


def _difference(wide: Label, narrow: Label, alive: Tensor, roots: Tensor) -> str:
    if len(wide.shape) != len(narrow.shape):
        return f"has {len(narrow.shape)} dimensions at another width, {len(wide.shape)} at this one"
    for dim, size in enumerate(wide.shape):
        ids = wide.axes[dim].ids if dim in wide.axes else None
        kept = None if ids is None else ids[alive[ids]]
        expected = size if kept is None else kept.numel()
        if narrow.shape[dim] != expected:
            if kept is None and wide.uniform(dim) and narrow.uniform(dim):
                continue
            return f"has size {narrow.shape[dim]} along dimension {dim} where {expected} of {size} channels are left"
        if expected > 1:
            found = narrow.axes[dim].ids if dim in narrow.axes else torch.full((expected,), NONE)
            if not torch.equal(roots[found], roots[kept] if kept is not None else torch.full((expected,), NONE)):
                return f"mixes up channels along dimension {dim}"
    return ""


def _numbers(operation: Operation) -> Iterator[Any]:
    """Yield the arguments that are numbers or strings."""
    for value in flat([value for name, value in operation.arguments.items() if name != "pad"]):  # `pad` is a size
        if type(value) in (int, float, str):
            yield value
