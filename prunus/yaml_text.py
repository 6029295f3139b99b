"""YAML from outside as plain data, within limits, and plain data as YAML."""

import re
from typing import Any

import yaml

from prunus.decoding import SETTINGS, DecodingError, Limits, check_size, check_value


class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Safe YAML whose numbers are those of YAML 1.2: `1e-4` is one, while `010` (8 in YAML 1.1), `1:30` (90) and dates
    are text."""


_FLOAT, _INT = "tag:yaml.org,2002:float", "tag:yaml.org,2002:int"
_NUMBERS = (_FLOAT, _INT)
WHOLE = re.compile(r"^[-+]?(0|[1-9][0-9_]*|0x[0-9a-fA-F_]+|0b[01_]+)$")
REAL = re.compile(
    r"^([-+]?([0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+|[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*([eE][-+]?[0-9]+)?|\.(inf|Inf|INF))"
    r"|\.(nan|NaN|NAN))$"
)
Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in (*_NUMBERS, "tag:yaml.org,2002:timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Loader.add_implicit_resolver(_INT, WHOLE, list("-+0123456789"))
Loader.add_implicit_resolver(_FLOAT, REAL, list("-+0123456789."))


class Dumper(yaml.SafeDumper):  # type: ignore[misc]
    """Writes YAML that both this module and readers of YAML 1.1 read as the same values: text like either's numbers is
    quoted."""


Dumper.add_implicit_resolver(_INT, WHOLE, list("-+0123456789"))
Dumper.add_implicit_resolver(_FLOAT, REAL, list("-+0123456789."))


def to_yaml(value: Any) -> str:
    """Return plain data as YAML text; `from_yaml` gives the same data."""
    text: str = yaml.dump(value, Dumper=Dumper, sort_keys=False, allow_unicode=True)
    return text


def from_yaml(text: str, limits: Limits = SETTINGS) -> Any:
    """Return the value of YAML `text`.

    Raises:
        DecodingError: it is not YAML, or exceeds the limits.
    """
    return yaml_document(text, limits)[1]


def yaml_document(text: str, limits: Limits = SETTINGS) -> tuple[yaml.Node | None, Any]:
    """Return the root node of YAML `text`, whose nodes know their lines, and the value.

    Raises:
        DecodingError: it is not YAML, or exceeds the limits.
    """
    check_size(text, limits)
    try:
        _check_depth(text, limits)  # before any recursive code reads it
        node = _composed(text)
        if node is None:
            return None, None
        _count(node, limits, {}, set())
        value = yaml.load(text, Loader)  # a safe loader; it makes its own nodes, since merged keys change them
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise DecodingError(str(getattr(error, "problem", None) or error), mark.line + 1 if mark else None) from error
    except DecodingError:
        raise
    except (ValueError, TypeError, OverflowError, RecursionError, AttributeError) as error:  # from a constructor
        raise DecodingError(f"it holds a value that cannot be read: {error}") from error
    check_value(value, limits)
    return node, value


def _composed(text: str) -> yaml.Node | None:
    loader = Loader(text)
    try:
        return loader.get_single_node()
    finally:
        loader.dispose()


def _check_depth(text: str, limits: Limits) -> None:
    depth = 0
    for event in yaml.parse(text, Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > limits.depth:
            raise DecodingError(f"it is nested more than {limits.depth} deep", event.start_mark.line + 1)


def _count(node: yaml.Node, limits: Limits, known: dict[int, tuple[int, int]], above: set[int]) -> tuple[int, int]:
    """Return (items, depth) of a node with its aliases expanded; refuse a node that exceeds the limits."""
    if id(node) in known:
        return known[id(node)]
    line = node.start_mark.line + 1
    if id(node) in above:
        raise DecodingError("an alias holds itself", line)
    if isinstance(node, yaml.ScalarNode):
        if "\0" in node.value:
            raise DecodingError("it holds a NUL character, which no name or path can hold", line)
        if node.tag in _NUMBERS and len(node.value) > limits.digits + len("-0x."):
            raise DecodingError(f"a number of {len(node.value):,} digits, and at most {limits.digits} are read", line)
        return 1, 0
    pairs = isinstance(node, yaml.MappingNode)
    children = [part for pair in node.value for part in pair] if pairs else node.value
    counts = [_count(child, limits, known, above | {id(node)}) for child in children]
    items, depth = 1 + sum(number for number, _ in counts), 1 + max((deep for _, deep in counts), default=0)
    if items > limits.items or depth > limits.depth:
        raise DecodingError(f"with its aliases expanded it is more than {limits.items:,} items, or too deep", line)
    known[id(node)] = items, depth
    return items, depth
