"""Checks of the arguments for reading a network: the network itself and its example inputs."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from prunus.errors import TraceError
from prunus.modules.tree import leaves

PLAIN = (int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.Size)
Inputs = Tensor | tuple[Any, ...]


def arguments(inputs: Inputs) -> tuple[Any, ...]:
    """Return example inputs as positional arguments: a tensor stands for a tuple of one.

    Raises:
        TraceError: `inputs` is neither a tensor nor a tuple or list.
    """
    if not isinstance(inputs, Tensor | tuple | list):
        raise TraceError(f"example inputs are a tensor or a tuple of arguments, not {inputs!r:.80}")
    return (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)


def tensors_in(value: object, *, strict: bool = False) -> list[Tensor]:
    """Return the tensors in inputs or outputs; with `strict`, raise TypeError for objects that may hide tensors."""
    found = list(leaves(pytree.tree_leaves(value)))
    hidden = [leaf for leaf in found if strict and not isinstance(leaf, (Tensor, *PLAIN))]
    if hidden:
        raise TypeError(
            f"the network returns a {type(hidden[0]).__name__}, whose tensors cannot be found: let it return tensors, "
            "tuples, lists, dictionaries or dataclasses of them"
        )
    return [leaf for leaf in found if isinstance(leaf, Tensor)]


def unusable(model: object) -> str | None:
    """Return why the code of `model` cannot be run and changed, and what to pass instead; None if it can."""
    if not isinstance(model, nn.Module):
        return f"Prunus takes a torch.nn.Module, not {model!r:.80}: pass the network, built"
    if isinstance(model, torch.jit.ScriptModule):
        return (
            f"{type(model).__name__} is TorchScript, which keeps no Python code that could be read: pass the network "
            "that was scripted or traced, and script what comes out"
        )
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if nn.parameter.is_lazy(tensor):
            return f"{name} is lazy and has no shape yet: run the network once on an example"
        if type(tensor).__name__ == "FakeTensor":
            return f"{name} is a FakeTensor and has no values: build the network outside of FakeTensorMode, and load it"
    return None


def check_readable(model: nn.Module) -> None:
    """Refuse a model that is not a network, or is wrapped, compiled, scripted or without values.

    Raises:
        TraceError: the model is refused; the message states what to pass instead.
    """
    if (reason := unusable(model)) is not None:
        raise TraceError(reason)
    wrapper = type(model).__name__
    if isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
        raise TraceError(f"the model is wrapped in {wrapper}: trace what is inside, `model.module`")
    if wrapper == "OptimizedModule":
        raise TraceError(
            "the model is compiled (torch.compile): trace the module that was compiled, compile afterwards"
        )
    meta = [name for name, tensor in (*model.named_parameters(), *model.named_buffers()) if tensor.is_meta]
    if meta:
        raise TraceError(
            f"{meta[0]} is on the meta device and has no values: `model.to_empty(device='cpu')` and load it first"
        )
