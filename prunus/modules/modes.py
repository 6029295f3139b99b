"""Train/eval modes of a network's modules, put back after use."""

import contextlib
from collections.abc import Iterator
from typing import TypeVar

from torch import nn

from prunus.modules.kinds import BatchNorm

Network = TypeVar("Network", bound=nn.Module)


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


def in_evaluation(model: Network) -> Network:
    """Put `model` in evaluation mode as its own code does, and return it: an overridden `train` may return None."""
    set_mode_(model, training=False)
    return model


def set_mode_(model: nn.Module, *, training: bool) -> None:
    """Put `model` in training or evaluation mode as its own code does.

    Batch norms with running statistics stay in evaluation: an example of one image may have no variance.
    """
    try:
        model.train(training)
    except NotImplementedError:  # an exported module has no modes
        for module in model.modules():
            module.training = training
    for module in model.modules():
        if isinstance(module, BatchNorm) and module.track_running_stats:
            module.training = False
