"""Attributes of modules other than their tensors and submodules."""

from collections.abc import Iterator
from typing import Any

from torch import nn

REGISTRIES = ("_parameters", "_buffers", "_modules")
_SCALARS = frozenset({bool, int, float, complex, str, bytes, type(None)})
_CONTAINERS = (dict, list, tuple, set)


def kept(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield (name, value) of a module's attributes, hooks included; skip scalars and empty containers, of which torch
    keeps a dozen per module."""
    for name, value in vars(module).items():
        empty = isinstance(value, _CONTAINERS) and not value
        if type(value) not in _SCALARS and not empty and name not in REGISTRIES:
            yield name, value
