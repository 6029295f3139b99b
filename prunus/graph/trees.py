"""Operators' arguments and results: values, alone, in lists and in dictionaries of settings."""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")


def replaced(value: Any, kind: type[T], function: Callable[[T], object]) -> Any:
    """Return an argument with every `kind` in it replaced by `function` of it."""
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
