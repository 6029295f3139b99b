"""Where a node of an exported graph comes from: operator, module, the user's own line."""

from collections.abc import Iterable, Iterator
from typing import Any

from torch.fx import GraphModule, Node


def operator_name(target: Any) -> str:
    """Return "namespace::operator" of an operator, the in-place underscore taken off."""
    parts = str(target).split(".")
    if len(parts) < 2:
        return f"python::{getattr(target, '__name__', target)}"
    return f"{parts[0]}::{parts[1].rstrip('_') or parts[1]}"


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
    returns = node.target._schema.returns
    return not in_place(node.target) and any(value.alias_info is not None for value in returns)


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
    lines = [text for text in (node.meta.get("stack_trace") or "").splitlines() if text.strip().startswith("File")]
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


def inner(node: Node, root: Any) -> GraphModule | None:
    """Return the graph that a higher-order operator runs as it is (autocast, no_grad), if it is one."""
    name = getattr(node.target, "_name", getattr(node.target, "__name__", ""))
    if node.op != "call_function" or name not in ("wrap_with_autocast", "wrap_with_set_grad_enabled"):
        return None
    body = next(argument for argument in node.args if isinstance(argument, Node) and argument.op == "get_attr")
    found = root.get_submodule(str(body.target))
    return found if isinstance(found, GraphModule) else None


def all_nodes(holder: Any) -> Iterator[Node]:
    """Yield the nodes of the graph that `holder` has, and of the graphs in it, in the order in which they run."""
    for node in holder.graph.nodes:
        body = inner(node, holder)
        if body is not None:
            yield from all_nodes(body)
        yield node
