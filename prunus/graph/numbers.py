"""Numbers in the graph that may have been computed from a width: those that the code does not spell out."""

import dis
import functools
import linecache
import types
from collections.abc import Iterable, Iterator
from itertools import zip_longest
from typing import Any

from torch import nn
from torch.fx import Node

from prunus.graph.code import reached
from prunus.graph.compare import MOVES, Reading
from prunus.graph.findings import Findings, Kind
from prunus.graph.labels import Label
from prunus.graph.place import flat, in_torch, line, module_path, operator_name

WIDTHS = frozenset(  # what code that computes with a width mentions
    {"shape", "size", "numel", "out_channels", "in_channels", "out_features", "in_features", "num_features"}
)
DIMENSIONS = ("dim", "dims", "dim0", "dim1", "start_dim", "end_dim")
FEW = 64  # values of a tensor that a width may be among
TO_THE_END = 2**63 - 1  # of a slice
LAYERS = frozenset(name for name in MOVES if "conv" in name or "norm" in name)  # whose numbers are those of a kernel


def needed(model: nn.Module, findings: Findings, readings: Iterable[Reading]) -> bool:
    """Whether a written-down size or a number among the operators makes a second look necessary."""
    if any(mark.kind is Kind.WRITTEN for mark in findings.marks):
        return True
    nodes = ((reading, node) for reading in readings for node in reading.program.graph.nodes)
    return any(_computed(model, node, number) for reading, node in nodes for number in _operands(reading, node))


def _operands(reading: Reading, node: Node) -> Iterator[float]:
    """Yield the numbers that an operator of the user's own code takes, those of a tensor that it makes included."""
    name = operator_name(node.target) if node.op == "call_function" else ""
    if name.startswith("aten::lift_fresh"):
        label = reading.labels.get(node)
        if isinstance(label, Label) and label.data is not None and label.data.numel() <= FEW:
            yield from label.data.flatten().tolist()
    if not name or name == "python::getitem" or name in LAYERS or in_torch(node):
        return
    for operand in flat(list(_arguments(node))):
        if isinstance(operand, int | float) and not isinstance(operand, bool) and operand != TO_THE_END:
            yield operand


def _arguments(node: Node) -> Iterator[Any]:
    """Yield an operator's arguments but those that number dimensions."""
    schema = getattr(node.target, "_schema", None)
    names = [argument.name for argument in schema.arguments] if schema is not None else []
    for name, value in (*zip_longest(names[: len(node.args)], node.args), *node.kwargs.items()):
        if name not in DIMENSIONS:
            yield value


def _computed(model: nn.Module, node: Node, number: float) -> bool:
    """Whether a number is no constant of the very statement, and none that the module keeps (a slope, an epsilon; whole
    ones may be a width's by chance), so that it may be computed from a width.

    Where a module's code reads a width, in whatever method or function, none of its numbers is trusted: `d =
    x.shape[1]`, then `x * 8 / d`.
    """
    module = model.get_submodule(module_path(node))
    kind: Any = type(module)  # mypy takes no class of modules for hashable
    if not reached(kind).isdisjoint(WIDTHS):
        return True
    file, _, at = line(node).rpartition(":")
    spelled_out = at.isdigit() and abs(number) in _constants(file).get(int(at), ())
    return not spelled_out and not _is_kept(module, number)


def _is_kept(module: nn.Module, number: float) -> bool:
    values = vars(module).values() if type(number) is float else ()
    return any(type(value) is float and value == number for value in values)


@functools.cache
def _constants(file: str) -> dict[int, set[float]]:
    """Return the sizes of the numbers that what begins at each line of a file spells out, constant expressions
    evaluated: a call may go over several lines."""
    found: dict[int, set[float]] = {}
    ends: dict[int, int] = {}
    try:
        top = compile("".join(linecache.getlines(file)), file, "exec")
    except (SyntaxError, ValueError):  # code that is not kept in a file
        return found
    for code in _within(top):
        for instruction in dis.get_instructions(code):
            value, place = instruction.argval, instruction.positions
            if instruction.opname == "LOAD_CONST" and place and place.lineno:
                numbers = (each for each in flat([value]) if type(each) in (int, float))
                found.setdefault(place.lineno, set()).update(map(abs, numbers))
            elif place and place.lineno and place.end_lineno:
                ends[place.lineno] = max(ends.get(place.lineno, 0), place.end_lineno)
    spans = {at: range(at, ends.get(at, at) + 1) for at in {*found, *ends}}
    return {at: set[float]().union(*(found.get(each, ()) for each in lines)) for at, lines in spans.items()}


def _within(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _within(constant)
