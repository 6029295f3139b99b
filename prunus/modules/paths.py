"""Modules by their dotted paths."""

import difflib
from collections.abc import Iterable
from typing import Any

from torch import nn

from prunus.errors import EditError


def module_at(model: nn.Module, path: str) -> Any:
    """Return the module of `model` at `path`.

    Raises:
        EditError: there is none; the message names similar paths.
    """
    try:
        return model.get_submodule(path)
    except AttributeError as error:
        near = near_paths(path, (path for path, _ in model.named_modules()))
        raise EditError(f"{path}: {type(model).__name__} has no such module{near}") from error


def near_paths(text: str, paths: Iterable[str]) -> str:
    """Return the end of a message: paths similar to `text`, or else the first paths."""
    words = text.strip("*.?")
    everything = [path for path in paths if path]
    if not everything:
        return "; it has none"
    near = difflib.get_close_matches(words, everything, n=3, cutoff=0.4)
    near = near or [path for path in everything if words and words.split(".")[-1] in path][:3]
    return f"; similar: {', '.join(near)}" if near else f"; available: {', '.join(everything[:5])}, ..."


def paths_of(model: nn.Module, module: nn.Module) -> list[str]:
    """Return every path of `module` in `model`."""
    return [path for path, other in model.named_modules(remove_duplicate=False) if other is module]
