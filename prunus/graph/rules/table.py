"""The table from operators to rules."""

from collections.abc import Callable
from typing import TypeAlias, TypeVar

from prunus.graph.call import Call
from prunus.graph.labels import Labels
from prunus.program.operators import Operator

Rule: TypeAlias = Callable[[Call], Labels]
R = TypeVar("R", bound=Rule)
POINTWISE = "tag::pointwise"  # stands for all operators with torch's tag `pointwise`
_RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[R], R]:
    """Register a function as the rule of the operators `names` ("namespace::operator"; "aten::" may be left out)."""

    def register(function: R) -> R:
        for name in names:
            _RULES[name if "::" in name else f"aten::{name}"] = function
        return function

    return register


def find(name: str, called: Operator) -> Rule:
    """Return the rule of `name`, which in-place variants share, else the element-wise rule if torch tags the operator
    as pointwise, else `unknown`."""
    if name in _RULES:
        return _RULES[name]
    return _RULES[POINTWISE] if called.pointwise else unknown


def unknown(call: Call) -> Labels:
    """An operator without a rule: refuse every channel that reaches it."""
    call.freeze_all(f"unknown operator {call.name}")
    return call.results()
