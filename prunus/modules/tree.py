"""Trees: nested lists, tuples, dictionaries, sets and dataclasses, as networks take, keep and return them.

Everything else is a leaf. Containers keep their type, also named tuples, OrderedDicts and dataclasses such as the
outputs of transformers.
"""

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import torch
from torch import nn

T = TypeVar("T")


def items(tree: Any) -> list[tuple[Any, Any]] | None:
    """Return (key, child) of a container: keys of a mapping, names of fields, otherwise indices. None for a leaf."""
    if isinstance(tree, Mapping):
        return list(tree.items())
    if isinstance(tree, list | tuple | set | frozenset):
        return list(enumerate(tree))
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type | nn.Module):
        names = [field.name for field in dataclasses.fields(tree)]
        return [(name, getattr(tree, name)) for name in names if hasattr(tree, name)]
    return None


def leaves(tree: Any) -> Iterator[Any]:
    """Yield the leaves in order; a container that contains itself is entered once."""
    yield from _leaves(tree, ())


def _leaves(tree: Any, above: tuple[int, ...]) -> Iterator[Any]:
    children = items(tree)
    if children is None:
        yield tree
    elif id(tree) not in above:
        for _, child in children:
            yield from _leaves(child, (*above, id(tree)))


def named_leaves(tree: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (name, leaf): keys, fields and indices joined with dots, as "heads.0"; a single leaf has the name ""."""
    children, fields = items(tree), getattr(tree, "_fields", None)  # fields of a named tuple
    if children is None:
        yield name, tree
    for key, child in children or ():
        key = fields[key] if fields and isinstance(key, int) else key
        yield from named_leaves(child, f"{name}.{key}".removeprefix("."))


def mapped(function: Callable[[Any], Any], tree: Any) -> Any:
    """Return a tree of the same containers with `function(leaf)` for each leaf; the tree itself is not changed."""
    children = items(tree)
    if children is None:
        return function(tree)
    new = {key: mapped(function, child) for key, child in children}
    if isinstance(tree, Mapping):
        return _mapping(tree, new)
    if isinstance(tree, list | tuple | set | frozenset):
        return _sequence(tree, list(new.values()))
    result = copy.copy(tree)
    for name, child in new.items():
        object.__setattr__(result, name, child)  # a dataclass may be frozen
    return result


def _mapping(tree: Mapping[Any, Any], new: dict[Any, Any]) -> Any:
    try:
        result: Any = copy.copy(tree)  # keeps a default factory, or the fields of a dataclass
        for key, child in new.items():
            result[key] = child
        return result
    except TypeError:  # immutable
        return type(tree)(new)  # type: ignore[call-arg]


def _sequence(tree: Any, new: list[Any]) -> Any:
    if hasattr(tree, "_make"):  # a named tuple's class takes its items one by one
        return tree._make(new)
    try:
        return type(tree)(new)
    except TypeError:  # such as torch.Size, which holds only whole numbers
        return tuple(new)


def on_device(tree: Any, device: torch.device) -> Any:
    """Return a tree of tensors on `device`."""
    return mapped(lambda tensor: tensor.to(device), tree)


def replaced(value: Any, kind: type[T], function: Callable[[T], object]) -> Any:
    """Return an operator's argument with `function` applied to every instance of `kind` in it."""
    if isinstance(value, kind):
        return function(value)
    if type(value) in (list, tuple):
        return type(value)([replaced(item, kind, function) for item in value])
    if type(value) is dict:
        return {key: replaced(item, kind, function) for key, item in value.items()}
    return value


def flat(value: object) -> Iterator[object]:
    """Yield the items of nested lists."""
    if isinstance(value, list | tuple):
        for item in value:
            yield from flat(item)
    else:
        yield value
