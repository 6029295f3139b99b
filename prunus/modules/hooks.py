"""Hooks on modules, of the forward and the backward pass."""

from torch import nn


def hook_tables(module: nn.Module) -> list[str]:
    """Return the names of the attributes in which a module keeps its forward and backward hooks."""
    return [name for name in vars(module) if name.startswith("_") and ("forward" in name or "backward" in name)]


def is_hooked(module: nn.Module) -> bool:
    """Whether hooks on a module would see that it is passed by."""
    return any(vars(module)[name] for name in hook_tables(module))
