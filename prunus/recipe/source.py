"""A recipe's values from a YAML file and dotted overrides, with the line or override that set each value."""

import dataclasses
from pathlib import Path
from typing import Any

import yaml

from prunus.decoding import SETTINGS, DecodingError, read_text
from prunus.errors import RecipeError
from prunus.yaml_text import from_yaml, yaml_document

KeyPath = tuple[str | int, ...]
COMPONENT_KEYS = ("class_path", "init_args")


class RefusedError(Exception):
    """Settings at `path` refuse their values for `reason`, which names the key."""

    def __init__(self, path: KeyPath, reason: str) -> None:
        super().__init__(reason)
        self.path, self.reason = path, reason

    def error(self, source: "Source", override: str | None = None) -> RecipeError:
        """Return the error with its place: the `override` that causes it, or the line of the settings."""
        if override is not None:
            source = dataclasses.replace(source, overrides={**source.overrides, self.path: override})
        return source.error(self.path, f"is refused: {self.reason}")


@dataclasses.dataclass(kw_only=True)
class Source:
    """Values, and the line or override that each came from, for error messages."""

    name: str
    values: dict[str, Any]
    lines: dict[KeyPath, int] = dataclasses.field(default_factory=dict)
    overrides: dict[KeyPath, str] = dataclasses.field(default_factory=dict)
    builds: bool = False  # whether `check` also builds plain settings, so that their errors name the line

    def error(self, path: KeyPath, message: str) -> RecipeError:
        """Return an error that begins with the line or override of `path`, or of its nearest parent that has one."""
        return RecipeError(f"{self._place(path)}: {_dotted(path)}{message}")

    def _place(self, path: KeyPath) -> str:
        short = tuple(step for step in path if step != "init_args")  # the keys of a default component omit init_args
        for end in range(len(path), -1, -1):
            for written in (path[:end], short[:end]):
                if written in self.overrides:
                    return f"override `{self.overrides[written]}`"
                if written in self.lines:
                    return f"{self.name}, line {self.lines[written]}"
        return self.name


def _dotted(path: KeyPath) -> str:
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return f"`{text.removeprefix('.')}` " if path else ""


def read(path: Path) -> Source:
    """Return the values of the YAML file at `path`, and the line of each key.

    Raises:
        RecipeError: no such file, no text, invalid YAML, a duplicate key, or no mapping.
    """
    try:
        text = read_text(path, SETTINGS.size)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise RecipeError(f"recipe {path} cannot be read: {reason}; `prunus recipes` lists those that exist") from error
    source = Source(name=str(path), values={})
    try:
        node, values = yaml_document(text)
    except DecodingError as error:
        line = f", line {error.line}" if error.line else ""
        raise RecipeError(f"{path}{line}: this is not valid YAML: {error.problem}") from error
    _note_lines(node, (), source)
    values = {} if node is None else values
    if not isinstance(values, dict):
        raise RecipeError(f"{path}, line 1: a recipe is a mapping of keys to values, not {values!r}")
    source.values = unshared(values)
    return source


def unshared(value: Any) -> Any:
    """Return a deep copy without shared parts, so that an override does not change a YAML alias of the same node."""
    if isinstance(value, dict):
        return {key: unshared(item) for key, item in value.items()}
    return [unshared(item) for item in value] if isinstance(value, list) else value


def _note_lines(node: yaml.Node | None, path: KeyPath, source: Source) -> None:
    """Record the line of every key; refuse duplicate keys, of which YAML would drop the first."""
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            source.lines[(*path, index)] = item.start_mark.line + 1
            _note_lines(item, (*path, index), source)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*path, str(key.value))
            if inner in source.lines:
                message = f"is written twice (first in line {source.lines[inner]}); keep one"
                raise RecipeError(f"{source.name}, line {key.start_mark.line + 1}: {_dotted(inner)}{message}")
            source.lines[inner] = key.start_mark.line + 1
            _note_lines(value, inner, source)


def override(source: Source, text: str) -> None:
    """Put the value of `key.path=value` into the source's values.

    Raises:
        RecipeError: no `=`, an empty key, a value that is not YAML, or a path through a value without keys.
    """
    key, equals, value_text = text.partition("=")
    steps = key.split(".")
    if not equals or not all(steps):
        raise RecipeError(f"override `{text}` is not of the form key.path=value, as in train.epochs=3")
    try:
        value = from_yaml(value_text)
    except DecodingError as error:
        raise RecipeError(f"override `{text}`: the value is not valid YAML: {error}") from error
    node: dict[str, Any] = source.values
    path: KeyPath = ()
    for index, step in enumerate(steps):
        if not node.keys().isdisjoint(COMPONENT_KEYS) and step not in COMPONENT_KEYS:
            path = (*path, "init_args")
            node = _descend(node, "init_args", path, text)
        path = (*path, step)
        if step not in node:
            source.overrides[path] = text  # the key is new
        if index < len(steps) - 1:
            node = _descend(node, step, path, text)
    if steps[-1] == "class_path" and node.get("class_path") != value:
        node.pop("init_args", None)
    node[steps[-1]] = value
    source.overrides[path] = text


def _descend(node: dict[str, Any], key: str, path: KeyPath, text: str) -> dict[str, Any]:
    inner = node.get(key)
    if inner is None:
        inner = node[key] = {}
    if isinstance(inner, str) and "." in inner:  # the short form of a component without settings
        inner = node[key] = {"class_path": inner}
    if not isinstance(inner, dict):
        raise RecipeError(f"override `{text}`: {_dotted(path)}holds {inner!r}, which has no keys inside")
    return inner
