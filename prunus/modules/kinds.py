"""Kinds of torch's layers: unions for annotations and `isinstance`, and a check that a module runs torch's own code."""

import typing
from typing import Any

from torch import nn
from torch.nn.utils.parametrize import is_parametrized

Conv = nn.Conv1d | nn.Conv2d | nn.Conv3d
TransposedConv = nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d
LinearLayer = Conv | TransposedConv | nn.Linear
BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d | nn.SyncBatchNorm
InstanceNorm = nn.InstanceNorm1d | nn.InstanceNorm2d | nn.InstanceNorm3d
SizedLayer = (  # the layers that keep their sizes as attributes (`sizes.py`)
    LinearLayer
    | BatchNorm
    | InstanceNorm
    | nn.Embedding
    | nn.PReLU
    | nn.LayerNorm
    | nn.RMSNorm
    | nn.GroupNorm
    | nn.MultiheadAttention
    | nn.RNNBase
    | nn.RNNCellBase
)


def members(union: Any) -> tuple[type[Any], ...]:
    """Return the classes of a union, in order."""
    return typing.get_args(union)


def kind_of(module: nn.Module) -> str | None:
    """Return torch's class name for a linear layer ("Conv2d", ...), None for other modules."""
    return next((kind.__name__ for kind in members(LinearLayer) if isinstance(module, kind)), None)


def is_plain(module: nn.Module, union: Any) -> bool:
    """Return whether a module is of one of the kinds of `union` and runs torch's own code on its own weights.

    A subclass may standardise or quantise its weight, or activate after a norm; a parametrisation computes the weight.
    """
    kind = next((kind for kind in members(union) if isinstance(module, kind)), None)
    own = ("forward", "_conv_forward", "__call__")
    same = all(getattr(type(module), name, None) is getattr(kind, name, None) for name in own)
    return kind is not None and same and not is_parametrized(module)
