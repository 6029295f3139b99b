"""Copies of a network, with other tensors or modules in the place of some."""

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from prunus.errors import EditError
from prunus.modules.closures import Closures
from prunus.modules.hooks import hook_tables
from prunus.modules.paths import paths_of

HOOK = (
    "; a hook of torch.nn.utils.weight_norm or .prune keeps a weight that it computes: take it away "
    "(remove_weight_norm, prune.remove), or use torch.nn.utils.parametrizations, which are followed"
)


def copied(model: nn.Module, memo: Mapping[int, Any] | None = None, *, share: bool = False) -> nn.Module:
    """Return a deep copy of `model`; functions that enclose its modules enclose the copies.

    Args:
        model: the network.
        memo: by the `id` of an object, what replaces it everywhere.
        share: what cannot be copied (an open file, a lock) is shared, rather than refused.

    Raises:
        EditError: something in it cannot be copied.
    """
    closures = Closures(model)
    known = {**(memo or {}), **closures.memo}
    try:
        result = copy.deepcopy(model, copies := dict(known))
    except (RuntimeError, TypeError) as error:  # torch.nn.utils.weight_norm, open files, ...
        if share:
            shared = {id(value): value for value in _uncopyable(model, known)}
            return copied(model, {**known, **shared})
        advice = HOOK if "explicitly by the user" in str(error) else ""
        raise EditError(f"{type(model).__name__} cannot be copied, so it cannot be edited: {error}{advice}") from error
    closures.fill(copies)
    return result


def _uncopyable(model: nn.Module, memo: Mapping[int, Any]) -> Iterator[Any]:
    """Yield the attributes of modules that `copy.deepcopy` refuses."""
    modules = {id(module): module for module in model.modules()}
    for module in modules.values():
        for name, value in vars(module).items():
            if name not in ("_parameters", "_buffers", "_modules"):
                try:
                    copy.deepcopy(value, {**memo, **modules})
                except (TypeError, RuntimeError):
                    yield value


def replaced(model: nn.Module, new: Mapping[str, nn.Module]) -> nn.Module:
    """Return a copy of `model` with other modules at the given paths, wherever `model` refers to the old ones.

    What takes a layer's place gets its hooks, and the public attributes that it has not itself; an `nn.Identity` gets
    none.
    """
    old = {path: model.get_submodule(path) for path in new}
    memo: dict[int, Any] = {id(old[path]): module for path, module in new.items()}
    result = copied(model, memo)
    for path, module in new.items():
        if not isinstance(module, nn.Identity):
            for name in _handed_on(old[path], module):
                setattr(module, name, copy.deepcopy(vars(old[path])[name], memo))
    return result


def replace_(model: nn.Module, path: str, module: nn.Module) -> None:
    """Put `module` in the place of the one at `path`, in `model` itself and at every path that it has."""
    for place in paths_of(model, model.get_submodule(path)):
        model.set_submodule(place, module)


def _handed_on(old: nn.Module, new: nn.Module) -> list[str]:
    public = [name for name in vars(old) if name[0] != "_" and not hasattr(new, name)]
    return hook_tables(old) + public
