"""Where a node of an exported graph comes from: operator, module, the user's own line."""

import functools
from collections.abc import Iterable
from typing import Any

from torch.fx import Node

# What may return its input, or a view of it, and does not say so: dropout in evaluation, sums over nothing.
UNDECLARED = frozenset(
    {"aten::dropout", "aten::feature_dropout", "aten::alpha_dropout", "aten::feature_alpha_dropout", "aten::einsum"}
)


@functools.cache  # there are few operators, and each is asked for often
def operator_name(target: Any) -> str:
    """Return "namespace::operator" of an operator, the in-place underscore taken off."""
    parts = str(target).split(".")
    if len(parts) < 2:
        return f"python::{getattr(target, '__name__', target)}"
    return f"{parts[0]}::{parts[1].rstrip('_') or parts[1]}"


@functools.cache
def in_place(target: Any) -> bool:
    """Whether an operator writes into its first argument (`add_`)."""
    parts = str(target).split(".")
    return len(parts) > 1 and parts[1].endswith("_") and not parts[1].startswith("__")


def is_view(node: Node) -> bool:
    """Whether a node's output shares its memory with its first argument."""
    if node.op != "call_function":
        return False
    if not hasattr(node.target, "_schema"):
        return getattr(node.target, "__name__", "") == "getitem" and is_view(node.all_input_nodes[0])
    return _gives_views(node.target)


@functools.cache
def _gives_views(target: Any) -> bool:
    if operator_name(target) in UNDECLARED:
        return True
    return not in_place(target) and any(value.alias_info is not None for value in target._schema.returns)


def module_path(node: Node) -> str:
    """Return the dotted path of the module whose code called the operator."""
    stack = node.meta.get("nn_module_stack") or {}
    return str(next(reversed(stack.values()))[0]) if stack else ""


def in_torch(node: Node) -> bool:
    """Whether the operator was called by one of torch's own layers."""
    stack = node.meta.get("nn_module_stack") or {}
    kind = next(reversed(stack.values()))[1] if stack else ""
    return (kind if isinstance(kind, str) else kind.__module__).startswith("torch.nn.modules.")


def where(node: Node) -> str:
    """Return "operator in module, file:line" for messages."""
    path, place = module_path(node), line(node).rpartition("/")[2]
    return f"{operator_name(node.target)}{f' in {path}' if path else ''}{f', {place}' if place else ''}"


def line(node: Node) -> str:
    """Return "file:line" of the innermost code that is not torch's own, "" where there is none."""
    return _innermost(node.meta.get("stack_trace") or "")


@functools.lru_cache(maxsize=8192)  # a node is asked for its line several times
def _innermost(trace: str) -> str:
    lines = [text for text in trace.splitlines() if text.strip().startswith("File")]
    lines = [text for text in lines if "/torch/" not in text]
    if not lines:
        return ""
    file, number = lines[-1].strip().split(", ")[:2]
    return f"{file[6:-1]}:{number.removeprefix('line ')}"


def flat(value: Any) -> Iterable[Any]:
    """Yield the items of nested lists and dictionaries."""
    if isinstance(value, list | tuple):
        for item in value:
            yield from flat(item)
    elif isinstance(value, dict):
        yield from flat(list(value.values()))
    else:
        yield value
