"""Train/eval modes of a network's modules, put back after use."""

import contextlib
from collections.abc import Iterator
from typing import TypeVar

from torch import Tensor, nn

from prunus.modules.attributes import kept
from prunus.modules.kinds import BatchNorm
from prunus.modules.tree import leaves

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

    Modules with a `train` or `eval` of their own call it, since they may keep something for evaluation (a fused kernel,
    a table of biases); what they kept before is put back. The other flags are set one by one.
    """
    before = [(module, dict(vars(module))) for module in _with_own_modes(model)]
    try:
        with modes_kept(model):
            for module, _ in before:
                _call_own_mode(module, training=False)
            for module in model.modules():
                module.training = False
            yield
    finally:
        for module, attributes in before:
            vars(module).clear()
            vars(module).update(attributes)


def keep_anew_(model: nn.Module) -> None:
    """Let modules whose own `train` or `eval` keeps tensors compute them from the parameters as they are now."""
    with modes_kept(model):
        for module in _with_own_modes(model):
            if any(isinstance(leaf, Tensor) for _, value in kept(module) for leaf in leaves(value)):
                _call_own_mode(module, training=module.training)


def _with_own_modes(model: nn.Module) -> list[nn.Module]:
    usual = (nn.Module.train, nn.Module.eval)
    return [module for module in model.modules() if (type(module).train, type(module).eval) != usual]


def _call_own_mode(module: nn.Module, *, training: bool) -> None:
    with contextlib.suppress(NotImplementedError):  # an exported module has no modes
        module.train() if training else module.eval()


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
