"""Training and evaluation: put a network into either for a while."""

import contextlib
from collections.abc import Iterator

from torch import nn

from prunus.modules.kinds import BatchNorm


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
