"""Hooks of modules and of parameters."""

import functools
import types
from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.prune import BasePruningMethod

from prunus.modules.tree import leaves

# The attributes in which a module keeps its forward and backward hooks.
HOOK_TABLES = tuple(name for name in vars(nn.Module()) if "forward" in name or "backward" in name)


def is_hooked(module: nn.Module) -> bool:
    """Return whether a module has hooks, which would not run if the module were bypassed."""
    return any(vars(module)[name] for name in HOOK_TABLES)


def hooks_of(module: nn.Module) -> list[Callable[..., Any]]:
    """Return the forward and backward hooks of a module."""
    return [hook for name in HOOK_TABLES for hook in leaves(vars(module)[name]) if callable(hook)]


def is_of(hook: Any, modules: Collection[int]) -> bool:
    """Return whether a hook is one of `modules` (ids) or a method of one, also inside `functools.partial`."""
    if isinstance(hook, functools.partial):
        return any(is_of(part, modules) for part in leaves((hook.func, hook.args, hook.keywords)))
    return id(hook.__self__ if isinstance(hook, types.MethodType) else hook) in modules


def mask_anew_(module: nn.Module) -> None:
    """Let masks of `torch.nn.utils.prune` recompute the weight that they keep in a module as a plain attribute."""
    with torch.no_grad():
        for hook in hooks_of(module):
            if isinstance(hook, BasePruningMethod):
                hook(module, ())


def parameter_hooks(parameter: Tensor) -> list[tuple[str, Callable[..., Any]]]:
    """Return (name of the registering method, hook) of a parameter's hooks.

    torch has no public access to them; if it stores them under other names, none are found.
    """
    tables = {"register_hook": "_backward_hooks", "register_post_accumulate_grad_hook": "_post_accumulate_grad_hooks"}
    return [
        (method, hook) for method, name in tables.items() for hook in (getattr(parameter, name, None) or {}).values()
    ]
