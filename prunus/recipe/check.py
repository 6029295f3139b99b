"""Check a recipe against the annotations of the settings classes; name the file, the line and the nearest key.

jsonargparse refuses the same recipes, but its errors name neither the file and line nor the nearest key.
"""

import argparse
import dataclasses
import difflib
import inspect
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from jsonargparse import ArgumentParser

from prunus.errors import PrunusError
from prunus.recipe import modules
from prunus.recipe.annotations import (
    alternatives,
    describe,
    is_component,
    is_plain,
    item_hint,
    structured,
    value_hint,
)
from prunus.recipe.source import COMPONENT_KEYS, KeyPath, RefusedError, Source
from prunus.yaml_text import REAL, WHOLE


def check(hint: Any, value: Any, path: KeyPath, source: Source) -> None:
    """Raise at the first part of `value` that does not fit the annotation `hint`; recurse into mappings and sequences.

    Raises:
        RecipeError: a value does not fit; names the file and line where it was written.
        RefusedError: a settings class refuses its values; only where `source.builds`.
    """
    if value is None and type(None) in alternatives(hint):
        return
    settings = structured(hint)
    if len(settings) == 1 and not is_plain(value, hint):
        _check_structured(settings[0], value, path, source)
    elif isinstance(value, list) and (inner := item_hint(hint)) is not None:
        for index, item in enumerate(value):
            check(inner, item, (*path, index), source)
    elif isinstance(value, dict) and (inner := value_hint(hint)) is not None:
        for key, item in value.items():
            check(inner, item, (*path, str(key)), source)
    else:
        _check_leaf(hint, value, path, source)


def _check_structured(hint: Any, value: Any, path: KeyPath, source: Source) -> None:
    if isinstance(value, str) and is_component(hint):
        value = {"class_path": value}
    if not isinstance(value, dict):
        raise source.error(path, f"must be a mapping of {hint.__name__}'s keys, not {value!r}")
    if "class_path" in value or is_component(hint):
        _check_component(hint, value, path, source)
    else:
        _check_arguments(hint, value, path, source, filled=())
        _check_built(hint, value, path, source)


def _check_component(hint: Any, value: dict[str, Any], path: KeyPath, source: Source) -> None:
    if "class_path" not in value:
        example = f"class_path: package.module.{hint.__name__}"
        raise source.error(path, f"must name a class by its dotted path, as in `{example}`")
    _check_keys(value, COMPONENT_KEYS, path, source)
    named, protocol = (*path, "class_path"), getattr(hint, "_is_protocol", False)
    filled = tuple(inspect.signature(hint.__call__).parameters)[1:] if protocol and callable(hint) else ()
    base = hint if not protocol else object if filled else None
    try:
        cls = _import(value["class_path"], base, named, source)
    except modules.MisfitError as error:
        wanted = f"{hint.__name__}: {inspect.cleandoc(hint.__doc__ or '')}"
        none = f"must name a {hint.__name__}, and {value['class_path']} is not one"
        raise source.error(named, f"names no class. {wanted}" if filled else none) from error
    if inspect.isabstract(cls):
        raise source.error(named, f"names {cls.__name__}, which is abstract: name a subclass")
    parameters = inspect.signature(cls).parameters
    for name in filled:
        if name not in parameters and not any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
            raise source.error(named, f"names {cls.__name__}, which takes no `{name}`: the run gives it")
    init_args = value.get("init_args")
    init_args = {} if init_args is None else init_args
    _check_arguments(cls, init_args, (*path, "init_args"), source, filled)
    if not filled:
        _check_built(cls, init_args, (*path, "init_args"), source)


def _import(class_path: Any, base: type | None, path: KeyPath, source: Source) -> Any:
    module, dot, name = str(class_path).rpartition(".")
    if not dot or not isinstance(class_path, str):
        raise source.error(path, f"must be a dotted path, as in package.module.Class, not {class_path!r}")
    try:
        return modules.named(class_path, base)
    except ImportError as error:
        raise source.error(path, f"names the module {module}, which cannot be imported: {error}") from error
    except AttributeError as error:
        known = vars(error)["known"]
        raise source.error(path, f"names {name}, which {module} does not have{_nearest(name, known)}") from error


def _check_arguments(cls: Any, value: Any, path: KeyPath, source: Source, filled: tuple[str, ...]) -> None:
    """Check the keys and values that become the arguments of `cls`; the run itself supplies those in `filled`."""
    if not isinstance(value, dict):
        raise source.error(path, f"must be a mapping of {cls.__name__}'s settings, not {value!r}")
    parameters = inspect.signature(cls).parameters.values()
    named = [
        parameter for parameter in parameters if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    for key in value:
        if key in filled:
            raise source.error((*path, key), "is filled in by the run; leave it out")
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        _check_keys(value, {parameter.name for parameter in named} - set(filled), path, source, _inside(cls))
    _name_default_classes(cls, value)
    _drop_default_bounds(cls, value)
    hints = typing.get_type_hints(cls if dataclasses.is_dataclass(cls) else getattr(cls, "__init__", cls))
    for parameter in named:
        if parameter.name in value:
            check(hints.get(parameter.name, Any), value[parameter.name], (*path, parameter.name), source)
        elif parameter.default is parameter.empty and parameter.name not in filled:
            raise source.error(path, f"lacks `{parameter.name}`, which {cls.__name__} needs")


def _check_built(cls: Any, value: dict[str, Any], path: KeyPath, source: Source) -> None:
    """Build plain settings, so that their error names the file and line."""
    if not source.builds or not dataclasses.is_dataclass(cls):
        return
    try:
        _built(cls, value)
    except PrunusError as error:
        raise RefusedError(path, str(error)) from error
    except (TypeError, ValueError):  # plain data is not enough: the parser builds it or raises
        return


def _built(cls: Any, value: dict[str, Any]) -> Any:
    """Return the settings that plain data describes; nested settings were built before without an error."""
    hints, given = typing.get_type_hints(cls), dict[str, Any]()
    for key, item in value.items():
        given[key] = _built_value(hints[key], item)
    return cls(**given)


def _built_value(hint: Any, item: Any) -> Any:
    inside = [option for option in alternatives(hint) if dataclasses.is_dataclass(option)]
    if isinstance(item, dict) and inside and "class_path" not in item:
        return _built(inside[0], item)
    if isinstance(item, dict):
        raise TypeError("a component or a mapping is not a plain value")
    if isinstance(item, list):
        inner = next((each for each in typing.get_args(hint) if each is not Ellipsis), Any)
        return tuple(_built_value(inner, each) for each in item)
    return item


def _name_default_classes(cls: Any, value: dict[str, Any]) -> None:
    """Add the default's `class_path` to `value` where a recipe gives only some settings of a component."""
    defaults = dataclasses.fields(cls) if dataclasses.is_dataclass(cls) else ()
    for field in defaults:
        given = value.get(field.name)
        if not isinstance(given, dict) or "class_path" in given:
            continue
        default = field.default_factory() if callable(field.default_factory) else field.default
        hint = typing.get_type_hints(cls)[field.name]
        if dataclasses.is_dataclass(default) and type(default) not in (hint, *typing.get_args(hint)):
            settings = {item.name: getattr(default, item.name) for item in dataclasses.fields(default)}
            class_path = f"{type(default).__module__}.{type(default).__qualname__}"
            given = given if "init_args" in given else {"init_args": given}
            inner = given["init_args"] or {}
            init_args = {**settings, **inner} if isinstance(inner, dict) else inner
            value[field.name] = {**given, "class_path": class_path, "init_args": init_args}


def _drop_default_bounds(cls: Any, value: dict[str, Any]) -> None:
    """Drop a default's values of fields that carry the metadata `one_of` where the recipe gives one of these fields:
    `budget: {latency: 0.5}` bounds the latency alone, although the default bounds the MACs."""
    for field in dataclasses.fields(cls) if dataclasses.is_dataclass(cls) else ():
        given = value.get(field.name)
        if isinstance(given, dict) and dataclasses.is_dataclass(field.default):
            fields = dataclasses.fields(field.default)
            bounds = {item.name: item.default for item in fields if "one_of" in item.metadata}
            if bounds.keys() & given.keys():
                value[field.name] = {**bounds, **given}


def _check_keys(
    value: Mapping[Any, Any],
    known: Iterable[str],
    path: KeyPath,
    source: Source,
    inside: Mapping[str, str] = types.MappingProxyType({}),
) -> None:
    for key in value:
        if key not in known:
            meant = f"; did you mean `{inside[key]}`?" if key in inside else _nearest(str(key), known)
            raise source.error((*path, str(key)), f"is not a known key{meant}")


def _inside(cls: Any, path: str = "") -> dict[str, str]:
    """Return the dotted path of each key of the settings nested in `cls`; if several share a key, the first one."""
    found, deeper = dict[str, str](), list[tuple[Any, str]]()
    for field in dataclasses.fields(cls) if dataclasses.is_dataclass(cls) else ():
        hint = typing.get_type_hints(cls)[field.name]
        nested = [each for each in alternatives(hint) if dataclasses.is_dataclass(each)]
        if path:
            found.setdefault(field.name, f"{path}{field.name}")
        deeper += [(each, f"{path}{field.name}.") for each in nested]
    for each, dotted in deeper:
        found = {**_inside(each, dotted), **found}
    return found


def _nearest(word: str, known: Iterable[str]) -> str:
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    if close:
        return f"; did you mean `{close[0]}`?"
    return f"; known: {', '.join(names)}" if names else "; no keys are allowed here"


def _check_leaf(hint: Any, value: Any, path: KeyPath, source: Source) -> None:
    """Check one plain value with jsonargparse alone, so that the error can name the file and line."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--value", type=hint)
    try:
        if value is None and hint not in (Any, object, None):
            raise TypeError("jsonargparse would take null for `not given`")
        read = parser.parse_object({"value": value}).value
        if _is_misread(value, read):
            raise TypeError("jsonargparse would take 010 for 8 and 1:30 for 90, as YAML 1.1 does")
    except (argparse.ArgumentError, ValueError, TypeError) as error:
        raise source.error(path, f"must be {describe(hint)}, not {value!r}") from error


def _is_misread(value: Any, read: Any) -> bool:
    """Whether text became a number that YAML 1.2 does not see in it."""
    if isinstance(value, list) and isinstance(read, list | tuple):
        return any(map(_is_misread, value, read))
    return isinstance(value, str) and type(read) in (int, float) and not (WHOLE.match(value) or REAL.match(value))
