"""Copies of a network, in which some tensors or modules may be replaced."""

import copy
import types
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from prunus.errors import EditError
from prunus.modules.attributes import kept
from prunus.modules.closures import Closures
from prunus.modules.hooks import HOOK_TABLES, hooks_of, is_hooked, is_of, parameter_hooks
from prunus.modules.paths import paths_of
from prunus.modules.tensors import parameter_like
from prunus.modules.tree import leaves

HOOK = (
    "; a hook of torch.nn.utils.weight_norm or .spectral_norm keeps a weight that it computes: remove it "
    "(remove_weight_norm), or use torch.nn.utils.parametrizations, which are followed"
)


def copied(model: nn.Module, memo: Mapping[int, Any] | None = None, *, isolated: bool = False) -> nn.Module:
    """Return a deep copy of `model`; functions that enclose its modules enclose the copies instead.

    A tensor with an autograd graph, such as features that `forward` has kept, is copied without the graph. Parameters
    keep their hooks. Hooks of modules are shared with the copy, except for methods of the network's own modules, so
    that a collector of features goes on collecting; a copy that only Prunus runs is `isolated` from them.

    Args:
        model: any network.
        memo: maps the `id` of an object to its replacement in the copy, wherever it is referred to.
        isolated: copy the hooks' objects too, and share objects that cannot be copied (an open file, a lock).

    Raises:
        EditError: an attribute cannot be copied; the message names it.
    """
    closures = Closures(model)
    known = _carried(model, isolated=isolated) | closures.memo | dict(memo or {})
    try:
        result = copy.deepcopy(model, copies := dict(known))
    except (RuntimeError, TypeError, ValueError) as error:  # torch.nn.utils.weight_norm, open files, FakeTensors, ...
        refused = dict(_uncopyable(model, known))
        if isolated and refused:
            return copied(model, known | {id(value): value for value in refused.values()}, isolated=True)
        place, reason = next(iter(refused), "something in it"), str(error).partition("\n")[0]
        advice = HOOK if "explicitly by the user" in reason else f"; remove {place} before, and set it again afterwards"
        message = f"{place}: {type(model).__name__} cannot be copied, so it cannot be edited: {reason}{advice}"
        raise EditError(message) from error
    closures.fill(copies)
    return result


def _carried(model: nn.Module, *, isolated: bool) -> dict[int, Any]:
    """Return a memo of the objects that `copy.deepcopy` would refuse, would copy incompletely, or should not copy."""
    memo, modules = dict[int, Any](), {id(module) for module in model.modules()}
    for module in model.modules():
        parameters = vars(module).get("_parameters", {})  # TorchScript has none there
        for parameter in parameters.values():
            if parameter is not None and (vars(parameter) or parameter_hooks(parameter)):
                memo[id(parameter)] = parameter_like(parameter.detach().clone(), parameter)
        if not isolated and is_hooked(module):
            memo |= {id(hook): hook for hook in hooks_of(module) if not is_of(hook, modules)}
        memo |= {id(value): value for _, value in kept(module) if isinstance(value, types.ModuleType)}  # self.np
        for name, value in (*kept(module), ("_buffers", vars(module).get("_buffers", {}))):
            masked = f"{name}_mask" in vars(module).get("_buffers", {})
            if masked or (f"{name}_g" not in parameters and f"{name}_orig" not in parameters):  # else HOOK
                tensors = (leaf for leaf in leaves(value) if isinstance(leaf, Tensor) and not leaf.is_leaf)
                memo |= {id(tensor): tensor.detach().clone() for tensor in tensors}
    return memo


def _uncopyable(model: nn.Module, memo: Mapping[int, Any]) -> Iterator[tuple[str, Any]]:
    """Yield (path, value) of the attributes that cannot be copied, not of those that refer to a module with one."""
    known = {**memo, **{id(module): module for module in model.modules()}}
    for path, module in model.named_modules():
        for name, value in kept(module):
            try:
                copy.deepcopy(value, dict(known))
            except (RuntimeError, TypeError, ValueError):
                yield f"{path}.{name}".removeprefix("."), value


def replaced(model: nn.Module, new: Mapping[str, nn.Module]) -> nn.Module:
    """Return a copy of `model` with other modules at the given paths, wherever `model` refers to the old ones.

    The new module gets the old one's hooks and the public attributes that it lacks; an `nn.Identity` gets neither.
    """
    old = {path: model.get_submodule(path) for path in new}
    for path, module in old.items():
        for name, parameter in module.named_parameters(prefix=path):
            if parameter_hooks(parameter):
                raise EditError(
                    f"{name} has hooks (register_hook, register_post_accumulate_grad_hook), and other parameters take "
                    "its place: remove them before, and register them again afterwards"
                )
    memo: dict[int, Any] = {id(old[path]): module for path, module in new.items()}
    result = copied(model, memo)
    for path, module in new.items():
        if not isinstance(module, nn.Identity):
            for name in _handed_on(old[path], module):
                setattr(module, name, copy.deepcopy(vars(old[path])[name], memo))
    return result


def replace_(model: nn.Module, path: str, module: nn.Module) -> None:
    """Replace the module at `path` by `module`, in `model` itself and at every path of the old module."""
    for place in paths_of(model, model.get_submodule(path)):
        model.set_submodule(place, module)


def _handed_on(old: nn.Module, new: nn.Module) -> list[str]:
    public = [name for name in vars(old) if name[0] != "_" and not hasattr(new, name)]
    return [*HOOK_TABLES, *public]
