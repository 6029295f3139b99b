"""Values from JSON as annotations have them: dataclasses, tuples, dictionaries, unions; anything else is refused."""

import dataclasses
import types
import typing
from typing import Any, Union


def typed(hint: Any, value: Any, place: str) -> Any:
    """Return `value`, as JSON has it, as the annotation `hint` has it.

    Raises:
        ValueError: it does not fit; `place` and the way into the value are named.
    """
    if hint is Any:
        return value
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _fields(hint, value, place)
    if origin is tuple and isinstance(value, list):
        hints = [arguments[0]] * len(value) if len(arguments) == 2 and arguments[1] is ... else arguments
        if len(hints) != len(value):
            raise ValueError(f"{place}: {len(hints)} values are expected, got {len(value)}")
        return tuple(typed(h, v, f"{place}[{i}]") for i, (h, v) in enumerate(zip(hints, value, strict=True)))
    if origin is dict and isinstance(value, dict):
        return {key: typed(arguments[1], item, f"{place}[{key!r}]") for key, item in value.items()}
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return typed(next(a for a in arguments if a is not type(None)), value, place)
    if hint is float and type(value) is int:
        return float(value)
    if origin is not None or type(value) is not hint:
        expected = "a list" if origin is tuple else getattr(hint, "__name__", str(hint))
        raise ValueError(f"{place}: {value!r:.60} is not {expected}")
    return value


def _fields(cls: type, value: Any, place: str) -> Any:
    if not isinstance(value, dict):
        raise ValueError(f"{place}: {value!r:.60} is not an object")
    names = {field.name for field in dataclasses.fields(cls)}
    required = {f.name for f in dataclasses.fields(cls) if f.default is dataclasses.MISSING}
    if unknown := sorted(value.keys() - names):
        raise ValueError(f"{place}: unknown field {unknown[0]!r}; known are {', '.join(sorted(names))}")
    if missing := sorted(required - value.keys()):
        raise ValueError(f"{place}: the field {missing[0]!r} is missing")
    hints = typing.get_type_hints(cls)
    return cls(**{name: typed(hints[name], item, f"{place}.{name}") for name, item in value.items()})
