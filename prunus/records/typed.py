"""Convert JSON values to annotated types: dataclasses, tuples, dictionaries, unions; refuse everything else."""

import dataclasses
import functools
import types
import typing
from typing import Any, Union


def typed(hint: Any, value: Any, place: str) -> Any:
    """Return the JSON value `value` converted to the annotated type `hint`.

    Raises:
        ValueError: the value does not fit; names `place` and the path within the value.
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
    if origin is list and isinstance(value, list):
        return [typed(arguments[0], item, f"{place}[{index}]") for index, item in enumerate(value)]
    if origin is dict and isinstance(value, dict):
        return {key: typed(arguments[1], item, f"{place}[{key!r}]") for key, item in value.items()}
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return typed(next(a for a in arguments if a is not type(None)), value, place)
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is int and not -(2**63) <= value < 2**63:
        raise ValueError(f"{place}: {value} is beyond 64 bits")
    if origin is not None or type(value) is not hint:
        expected = "a list" if origin is tuple else getattr(hint, "__name__", str(hint))
        raise ValueError(f"{place}: {value!r:.60} is not {expected}")
    return value


def _fields(cls: type, value: Any, place: str) -> Any:
    if not isinstance(value, dict):
        raise ValueError(f"{place}: {value!r:.60} is not an object")
    names = {field.name for field in dataclasses.fields(cls)}
    absent = dataclasses.MISSING
    required = {f.name for f in dataclasses.fields(cls) if f.default is absent and f.default_factory is absent}
    if unknown := sorted(value.keys() - names):
        raise ValueError(f"{place}: unknown field {unknown[0]!r}; known: {', '.join(sorted(names))}")
    if missing := sorted(required - value.keys()):
        raise ValueError(f"{place}: the field {missing[0]!r} is missing")
    hints = _hints(cls)
    return cls(**{name: typed(hints[name], item, f"{place}.{name}") for name, item in value.items()})


@functools.cache
def _hints(cls: Any) -> dict[str, Any]:
    return typing.get_type_hints(cls)
