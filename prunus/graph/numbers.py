"""Numbers in the graph that may have been computed from a width: those that the code does not spell out."""

import dis
import functools
import linecache
import types
from collections.abc import Iterable, Iterator

from torch.fx import Node

from prunus.graph.compare import MOVES, Reading
from prunus.graph.findings import Findings, Kind
from prunus.graph.labels import Label
from prunus.graph.place import all_nodes, flat, in_torch, line, operator_name

FEW = 64  # values of a tensor that a width may be among
MAKERS = frozenset(f"aten::{name}" for name in ("full", "new_full", "zeros", "new_zeros", "ones", "new_ones", "arange"))


def needed(findings: Findings, readings: Iterable[Reading]) -> bool:
    """Whether a written-down size or a number among the operators makes a second look necessary."""
    if any(mark.kind is Kind.WRITTEN for mark in findings.marks):
        return True
    nodes = ((reading, node) for reading in readings for node in all_nodes(reading.program.graph_module))
    return any(_computed(node, number) for reading, node in nodes for number in _operands(reading, node))


def _operands(reading: Reading, node: Node) -> Iterator[float]:
    """Yield the numbers that an operator of the user's own code takes, those of a tensor that it makes included."""
    name = operator_name(node.target) if node.op == "call_function" else ""
    if name.startswith("aten::lift_fresh"):
        label = reading.labels.get(node)
        if isinstance(label, Label) and label.data is not None and label.data.numel() <= FEW:
            yield from label.data.flatten().tolist()
    if not name or (name in MOVES and name not in MAKERS) or in_torch(node):
        return
    for operand in flat([*node.args, *node.kwargs.values()]):
        if isinstance(operand, int | float) and not isinstance(operand, bool):
            yield operand


def _computed(node: Node, number: float) -> bool:
    """Whether a number is no constant of the very line, so that it may be computed from a width."""
    file, _, at = line(node).rpartition(":")
    return not at.isdigit() or abs(number) not in _constants(file).get(int(at), ())


@functools.cache
def _constants(file: str) -> dict[int, set[float]]:
    """Return the sizes of the numbers that each line of a file spells out, constant expressions evaluated."""
    found: dict[int, set[float]] = {}
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
    return found


def _within(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _within(constant)
