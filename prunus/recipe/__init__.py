"""Recipes: YAML that fills a typed, keyword-only dataclass, through jsonargparse.

A field that holds a dataclass is a nested mapping. A field whose type is an abstract class, or a protocol
that builds an object, is a component: `class_path` names the class by its dotted path (the user's own
included) and `init_args` holds its settings. Overrides are dotted: `train.epochs=3`, `model.width_multiplier=0.5`
(`init_args` may be omitted), `model.class_path=my.Net` (which drops the former class's `init_args`).

jsonargparse checks types, fills in defaults and builds. Before that, `check` compares the recipe with the
annotations, since only there can an error name the file, the line, the key's path and the nearest key.
"""

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from jsonargparse import ArgumentParser

from prunus.decoding import from_json
from prunus.errors import PrunusError, RecipeError
from prunus.recipe.check import check
from prunus.recipe.describe import fields_of
from prunus.recipe.source import RefusedError, Source, override, read, unshared
from prunus.yaml_text import to_yaml

__all__ = ["build", "describe", "dump", "load", "resolve"]

T = TypeVar("T")


def load(cls: type[T], path: Path | str, overrides: Sequence[str] = ()) -> T:
    """Return the `cls` that the YAML file at `path` with the dotted `overrides` describes.

    Raises:
        RecipeError: no such file, invalid YAML, an unknown key, a wrong type, or a component that refuses.
    """
    source = _written(path, overrides)
    source.builds = True
    try:
        return build(cls, _resolved(cls, source))
    except RefusedError as refused:
        raise refused.error(source, _to_blame(cls, path, overrides, refused)) from refused


def resolve(cls: type[T], path: Path | str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Return the recipe as plain data with all defaults filled in, as runs record it and `build` accepts it.

    Raises:
        RecipeError: as `load`, except that nothing is built yet.
    """
    return _resolved(cls, _written(path, overrides))


def describe(recipe: Any) -> dict[str, Any]:
    """Return the recipe object `recipe` as plain data with all defaults, as `resolve` does for a file.

    A component is a dataclass, or, if built later (a network), a class or `functools.partial(Class, ...)`.

    Raises:
        RecipeError: a field holds a value that YAML cannot name, or one that does not fit its annotation.
    """
    return _resolved(type(recipe), Source(name="recipe", values=fields_of(recipe)))


def _written(path: Path | str, overrides: Sequence[str]) -> Source:
    source = read(Path(path))
    for item in overrides:
        override(source, item)
    return source


def _to_blame(cls: type, path: Path | str, overrides: Sequence[str], refused: RefusedError) -> str | None:
    """Return the override that causes the refusal: without it the settings are accepted, or refused for another reason.

    Return None if the file itself causes it.
    """
    reasons = {text: _refusal(cls, path, [other for other in overrides if other != text]) for text in overrides}
    to_blame = [text for text, reason in reasons.items() if reason is None]
    if not to_blame and _refusal(cls, path, ()) is None:  # several do
        to_blame = [text for text, reason in reasons.items() if reason != refused.reason]
    return to_blame[-1] if to_blame else None


def _refusal(cls: type, path: Path | str, overrides: Sequence[str]) -> str | None:
    """Return why settings refuse their values under `overrides`; None where they accept them."""
    source = _written(path, overrides)
    source.builds = True
    try:
        check(cls, source.values, (), source)
    except RefusedError as refused:
        return refused.reason
    except RecipeError as error:  # the omitted override had supplied the class or the keys
        return str(error)
    return None


def _resolved(cls: type, source: Source) -> dict[str, Any]:
    check(cls, source.values, (), source)
    parser = _parser(cls)
    try:
        text = parser.dump(parser.parse_object(source.values), skip_unset=False, format="json")
        resolved: dict[str, Any] = from_json(text)
    except (argparse.ArgumentError, ValueError, TypeError, KeyError) as error:
        raise RecipeError(f"{source.name}: {error}") from error
    return resolved


def build(cls: type[T], values: Mapping[str, Any]) -> T:
    """Return the `cls` that `values`, plain data as from `resolve`, describes; components are built.

    Raises:
        RecipeError: `values` do not fit `cls`, or a component refuses its settings.
    """
    source = Source(name="recipe", values=unshared(dict(values)))
    check(cls, source.values, (), source)
    parser = _parser(cls)
    try:
        fields = parser.instantiate(parser.parse_object(source.values))
        return cls(**{field.name: fields[field.name] for field in dataclasses.fields(cls)})  # type: ignore[arg-type]
    except PrunusError:
        raise
    except (argparse.ArgumentError, ValueError, TypeError, KeyError) as error:
        raise RecipeError(f"{source.name}: a component refuses its settings: {error}") from error


def dump(values: Mapping[str, Any]) -> str:
    """Return resolved `values` as YAML text; loading it gives the same values."""
    return to_yaml(dict(values))


def _parser(cls: type) -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(cls)
    return parser
