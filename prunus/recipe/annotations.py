"""The values that an annotation in a settings class allows: plain values, settings, components, and lists of them."""

import dataclasses
import enum
import inspect
import types
import typing
from pathlib import Path
from typing import Any, Union

PLAIN = (
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    list,
    tuple,
    dict,
    set,
    frozenset,
    type(None),
    Path,
    enum.Enum,
)


def alternatives(hint: Any) -> tuple[Any, ...]:
    """Return the annotations that a union allows, or `hint` itself."""
    return typing.get_args(hint) if typing.get_origin(hint) in (Union, types.UnionType) else (hint,)


def structured(hint: Any) -> list[Any]:
    """Return the alternatives that are settings, or components named by their class."""
    return [each for each in alternatives(hint) if dataclasses.is_dataclass(each) or is_component(each)]


def is_plain(value: Any, hint: Any) -> bool:
    """Whether `value` is the string or number that `hint` allows besides settings."""
    allowed = alternatives(hint)
    return type(value) in allowed or (type(value) is int and float in allowed)


def is_component(hint: Any) -> bool:
    """Whether `class_path` names the class of the value: the annotation is abstract, a protocol, or not plain data."""
    if hint in (Any, object) or not isinstance(hint, type) or typing.get_origin(hint) is not None:
        return False
    return inspect.isabstract(hint) or not (dataclasses.is_dataclass(hint) or issubclass(hint, PLAIN))


def item_hint(hint: Any) -> Any | None:
    """Return the annotation of the items of list[X], tuple[X, ...] or Sequence[X], where X is structured; else None."""
    arguments = [argument for argument in typing.get_args(hint) if argument is not Ellipsis]
    if len(arguments) != 1 or not isinstance(typing.get_origin(hint), type):
        return None
    return arguments[0] if structured(arguments[0]) else None


def value_hint(hint: Any) -> Any | None:
    """Return the annotation of the values of dict[str, X], where X is structured; else None."""
    if typing.get_origin(hint) is not dict:
        return None
    values = typing.get_args(hint)[1]
    return values if structured(values) else None


def describe(hint: Any) -> str:
    """Describe, for an error, what `hint` allows."""
    if typing.get_origin(hint) is typing.Literal:
        return f"one of {', '.join(map(repr, typing.get_args(hint)))}"
    if isinstance(hint, type) and typing.get_origin(hint) is None:
        return hint.__name__
    return str(hint).replace("typing.", "")
