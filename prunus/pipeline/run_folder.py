"""The folder of a run, identified by its `recipe.yaml`; another recipe is refused once there are checkpoints."""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import prunus.recipe
from prunus import trust
from prunus.decoding import SETTINGS, read_text
from prunus.errors import CheckpointError, RecipeError, RecordError
from prunus.writing import write_whole
from prunus.yaml_text import from_yaml

FILE_NAME = "recipe.yaml"


def prepare_run_folder(folder: Path, resolved: Mapping[str, Any], *, accept_changes: bool = False) -> bool:
    """Make `folder` the folder of the run `resolved`, and return whether it holds checkpoints to resume from.

    Without a checkpoint nothing can be lost, so the folder of an attempt that failed early may be reused. With
    `accept_changes`, a run is resumed from its checkpoints although its recipe was changed.

    Raises:
        RecipeError: the folder holds the checkpoints of another recipe; the message lists the differences.
        RecordError: the folder is not writable.
    """
    path = folder / FILE_NAME
    begun = any(folder.glob("checkpoints/*/[0-9]*"))
    if begun and not accept_changes:
        refuse_other_recipe(folder, resolved)
        return True
    try:
        _write(path, prunus.recipe.dump(resolved))
    except OSError as error:
        raise RecordError(f"{folder} is not writable ({error.strerror}): choose another with output=...") from error
    return begun


def refuse_other_recipe(folder: Path, resolved: Mapping[str, Any]) -> None:
    """Refuse a folder with a run of another recipe than `resolved`; a folder without a recipe is accepted.

    Raises:
        RecipeError: the recipes differ; the message lists the differences.
    """
    path = folder / FILE_NAME
    if path.is_file() and (different := recipe_differences(_read(path), resolved)):
        raise RecipeError(
            f"{folder} holds a run of another recipe: {'; '.join(different[:5])}: choose another folder with "
            "output=..., or remove this one; or, to resume from its checkpoints under this recipe, give "
            "--accept-changes (in Python: accept_changes=True)"
        )


def begun_with(folder: Path, key: str) -> Any:
    """Return the value of the top-level `key` in the recipe of the run in `folder`; None if there is no run yet."""
    path = folder / FILE_NAME
    found = _read(path) if path.is_file() else None
    return found.get(key) if isinstance(found, Mapping) else None


def refuse_linked_folders(folder: Path) -> None:
    """Refuse symbolic links inside the folder of a run, so that none is written through.

    Raises:
        RecordError: there is one; the message names it.
    """
    for parent, names, _ in os.walk(folder):
        for path in (Path(parent) / name for name in names):
            if path.is_symlink():
                raise RecordError(
                    f"{path} is a symbolic link, and a run writes only inside its folder: remove it; to write "
                    "elsewhere, link the whole folder, or name another with output=..."
                )


@contextlib.contextmanager
def run_folder(
    folder: Path, resolved: Mapping[str, Any], *, accept_changes: bool, going_on: Callable[[], bool]
) -> Iterator[bool]:
    """Prepare `folder` for the duration of a run. If its checkpoints do not fit a changed recipe and the run is not yet
    `going_on`, restore the former `recipe.yaml`."""
    path = folder / FILE_NAME
    former = path.read_bytes() if path.is_file() else None
    begun = prepare_run_folder(folder, resolved, accept_changes=accept_changes)
    trust.sign(folder)
    try:
        yield begun
    except CheckpointError:
        if begun and former is not None and not going_on():
            _write(path, former.decode("utf-8"))
            trust.sign(folder)
        raise


def _read(path: Path) -> Any:
    try:
        return from_yaml(read_text(path, SETTINGS.size))
    except (OSError, ValueError) as error:
        raise RecipeError(f"{path} cannot be read ({error}): choose another folder with output=...") from error


def _write(path: Path, text: str) -> None:
    write_whole(path, text.encode("utf-8"))


def recipe_differences(there: Any, here: Any) -> list[str]:
    """Return a line for each key whose value differs, except `output`, since the folder may have been moved."""
    old, new = _leaves(there), _leaves(here)
    keys = [key for key in dict.fromkeys([*old, *new]) if key != "output" and old.get(key) != new.get(key)]
    return [f"`{key}` is {old.get(key, 'not set')} there, {new.get(key, 'not set')} here" for key in keys]


def _leaves(value: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping) or not value:
        return {path: list(value) if isinstance(value, tuple) else value}
    dot = "." if path else ""
    return {name: leaf for key, item in value.items() for name, leaf in _leaves(item, f"{path}{dot}{key}").items()}
