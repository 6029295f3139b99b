"""Numbers in the graph that may have been computed from a width: those that the code does not spell out."""

import dis
import functools
import linecache
import types
from collections.abc import Iterable, Iterator

from torch.fx import Node

from prunus.graph.call import Findings, Kind
from prunus.graph.compare import Reading
from prunus.graph.place import all_nodes, line, operator_name

ARITHMETIC = frozenset(
    f"aten::{name}"
    for name in ("mul", "div", "add", "sub", "rsub", "pow", "floor_divide", "true_divide", "full", "fill")
)


def needed(findings: Findings, readings: Iterable[Reading]) -> bool:
    """Whether a written-down size or a number among the operators makes a second look necessary."""
    if any(mark.kind is Kind.WRITTEN for mark in findings.marks):
        return True
    nodes = (node for reading in readings for node in all_nodes(reading.program.graph_module))
    return any(_computed(node, number) for node in nodes for number in _operands(node))


def _operands(node: Node) -> list[float]:
    """Return the numbers among the operands of arithmetic."""
    if node.op != "call_function" or operator_name(node.target) not in ARITHMETIC:
        return []
    return [operand for operand in node.args if isinstance(operand, int | float) and not isinstance(operand, bool)]


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
            if instruction.opname == "LOAD_CONST" and type(value) in (int, float) and place and place.lineno:
                found.setdefault(place.lineno, set()).add(abs(value))
    return found


def _within(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _within(constant)
