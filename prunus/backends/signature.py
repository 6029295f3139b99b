"""A network's outputs as a flat dictionary of named tensors, and its inputs as a tuple."""

from typing import Any

import numpy as np
import torch
from torch import nn

from prunus.errors import DeployError
from prunus.modules.tree import items

Inputs = torch.Tensor | tuple[torch.Tensor, ...]
_UNKNOWN = (torch.bfloat16, torch.complex32, torch.float8_e4m3fn, torch.float8_e5m2)  # dtypes that numpy lacks


def named_outputs(output: Any) -> dict[str, torch.Tensor]:
    """Return the tensors of `output` (a tensor, or nested dictionaries, tuples, lists, dataclasses of them) by name.

    A single tensor is "output"; a dictionary's entries are named by their keys, a tuple's "output_0", "output_1", ...,
    nested entries by both names joined with "_". The order is the network's own; None is left out.

    Raises:
        DeployError: it contains something other than a tensor, or two outputs would have the same name.
    """
    pairs = _flatten("", output)
    if not pairs:
        raise DeployError(f"the network returns a {type(output).__name__} without tensors: return tensors from forward")
    names = [name for name, _ in pairs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DeployError(
            f"two outputs of the network would be called {', '.join(twice)}: rename the keys that forward returns"
        )
    return dict(pairs)


def as_tuple(inputs: Inputs) -> tuple[torch.Tensor, ...]:
    """Return the inputs of one call as a tuple of tensors.

    Raises:
        DeployError: an input is not a tensor, or there are none.
    """
    values = (inputs,) if isinstance(inputs, torch.Tensor) else tuple(inputs)
    for index, value in enumerate(values):
        if not isinstance(value, torch.Tensor):
            raise DeployError(
                f"input {index} is a {type(value).__name__}: deployed networks take tensors only; "
                "fix other arguments in a wrapping module"
            )
    if not values:
        raise DeployError("there are no inputs: give a tensor, or a tuple of the tensors that forward takes")
    return values


def as_arrays(inputs: Inputs) -> tuple[np.ndarray, ...]:
    """Return the inputs of one call as arrays, as backends take them.

    Raises:
        DeployError: an input is not a tensor, or has a dtype that numpy lacks.
    """
    tensors = as_tuple(inputs)
    for index, tensor in enumerate(tensors):
        if tensor.dtype in _UNKNOWN or tensor.is_quantized or tensor.is_sparse:
            kind = str(tensor.dtype).removeprefix("torch.") + (" (sparse)" if tensor.is_sparse else "")
            raise DeployError(
                f"input {index} is {kind}, which backends do not take: give dense float32, and the network in float32 "
                "(model.float())"
            )
    return tuple(tensor.detach().cpu().numpy() for tensor in tensors)


class Listed(nn.Module):
    """A network that returns only the tensors of its output, since torch's exporter does not know user dataclasses."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the named outputs, in their order."""
        return tuple(named_outputs(self.model(*inputs)).values())


def is_plain(output: Any) -> bool:
    """Whether torch's exporter accepts `output` unchanged: tensors in dictionaries, lists and tuples."""
    if isinstance(output, dict | list | tuple):
        return all(is_plain(child) for _, child in items(output) or ())
    return isinstance(output, torch.Tensor)


def _flatten(name: str, value: Any) -> list[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        return [(name or "output", value)]
    if value is None:  # an output that the network only has in another mode
        return []
    children = items(value)
    if children is None or isinstance(value, set | frozenset):  # a set has no order
        raise DeployError(
            f"the network returns a {type(value).__name__} (as {name or 'its output'}): only tensors, and "
            "dictionaries, tuples and lists of them can be deployed; return tensors from forward"
        )
    name = name or ("output" if isinstance(value, tuple | list) else "")
    prefix = f"{name}_" if name else ""
    return [pair for key, child in children for pair in _flatten(f"{prefix}{key}", child)]
