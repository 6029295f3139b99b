"""Train/eval modes of a network's modules, put back after use."""

import contextlib
from collections.abc import Iterator

from torch import nn


@contextlib.contextmanager
def modes_kept(model: nn.Module) -> Iterator[None]:
    """Restore every module's train/eval mode at the end."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put every module of `model` in evaluation mode within the context.

    The flags are set one by one, since an exported module refuses `eval()`.
    """
    with modes_kept(model):
        for module in model.modules():
            module.training = False
        yield
