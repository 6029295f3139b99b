"""Convert a recipe object made in Python to plain data that YAML can hold."""

import dataclasses
import enum
import functools
import typing
from pathlib import Path
from typing import Any

from prunus.errors import RecipeError


def plain(hint: Any, value: Any, path: str) -> Any:
    """Return `value`, annotated as `hint`, as numbers, strings, lists, mappings and `class_path` components.

    Raises:
        RecipeError: YAML cannot name an object; its place is `path`.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list | tuple):
        inner = next((item for item in typing.get_args(hint) if item is not Ellipsis), Any)
        return [plain(inner, item, f"{path}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, dict):
        inner = typing.get_args(hint)[1] if typing.get_origin(hint) is dict else Any
        return {key: plain(inner, item, f"{path}.{key}") for key, item in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = fields_of(value, path)
        expected = type(value) is hint or type(value) in typing.get_args(hint)
        return fields if expected else {"class_path": _class_path(type(value), path), "init_args": fields}
    return _factory(value, path)


def fields_of(value: Any, path: str = "") -> dict[str, Any]:
    """Return the fields of the dataclass `value` as plain data."""
    hints = typing.get_type_hints(type(value))
    dot = "." if path else ""
    return {
        field.name: plain(hints[field.name], getattr(value, field.name), f"{path}{dot}{field.name}")
        for field in dataclasses.fields(value)
        if field.init
    }


def _factory(value: Any, path: str) -> dict[str, Any]:
    """Describe a class, or a `functools.partial` of one (jsonargparse's partial has the class among its arguments)."""
    if isinstance(value, type):
        return {"class_path": _class_path(value, path)}
    if isinstance(value, functools.partial):
        classes = [item for item in (value.func, *value.args) if isinstance(item, type)]
        if classes:
            settings = {name: plain(Any, item, f"{path}.{name}") for name, item in value.keywords.items()}
            return {"class_path": _class_path(classes[-1], path), "init_args": settings}
    raise RecipeError(
        f"`{path}` is {value!r}, which a recipe cannot hold: settings are frozen dataclasses, and what is built later "
        "is a class or functools.partial(Class, key=value)"
    )


def _class_path(cls: type, path: str) -> str:
    if "<locals>" in cls.__qualname__:
        raise RecipeError(f"`{path}` is of {cls.__qualname__}, which has no dotted path: define it at a module's top")
    return f"{cls.__module__}.{cls.__qualname__}"
