"""Training and evaluation: put a network into either for a while."""

import contextlib
from collections.abc import Iterator

from torch import nn


@contextlib.contextmanager
def modes_kept(model: nn.Module) -> Iterator[None]:
    """Put every module's train/eval mode back at the end."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put every module of `model` in evaluation mode for the while: a weight that is computed may change its buffers in
    training. The flags are set one by one, since an exported module refuses `eval()`."""
    with modes_kept(model):
        for module in model.modules():
            module.training = False
        yield
