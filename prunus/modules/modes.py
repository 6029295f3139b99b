"""Train/eval modes of a network's modules, restored after use."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from prunus.modules.attributes import REGISTRIES, kept
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

    An overridden `train` or `eval` is called, since it may prepare data for evaluation (a fused kernel, a table of
    biases, a merged matrix); such modules are restored at the end. Other flags are set directly.
    """
    own = _with_own_modes(model)
    with modes_kept(model), _as_they_were(own):
        for module in own:
            _call_own_mode(module, training=False)
        for module in model.modules():
            module.training = False
        yield


@contextlib.contextmanager
def _as_they_were(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Restore at the end the attributes, submodules and tensors of the modules and their submodules, bit for bit."""
    inside = list(dict.fromkeys(each for module in modules for each in module.modules()))
    attributes = [dict(vars(module)) for module in inside]
    registered = [{name: dict(held[name]) for name in REGISTRIES if name in held} for held in attributes]
    tensors = list({id(t): t for module in modules for t in (*module.parameters(), *module.buffers())}.values())
    values = [tensor.detach().clone() for tensor in tensors]
    try:
        yield
    finally:
        for module, held, contents in zip(inside, attributes, registered, strict=True):
            vars(module).clear()
            vars(module).update(held)
            for name, content in contents.items():
                held[name].clear()
                held[name].update(content)
        for tensor, value in zip(tensors, values, strict=True):
            if tensor.shape != value.shape:
                tensor.data = value
            elif not tensor.is_meta and not torch.equal(tensor, value):
                tensor.data.copy_(value)


def keep_anew_(model: nn.Module) -> None:
    """Let modules whose overridden `train` or `eval` stores tensors recompute them from the current parameters."""
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
    """Put `model` in evaluation mode by its own code, and return it, since an overridden `train` may return None."""
    set_mode_(model, training=False)
    return model


def set_mode_(model: nn.Module, *, training: bool) -> None:
    """Put `model` in training or evaluation mode by its own code.

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
