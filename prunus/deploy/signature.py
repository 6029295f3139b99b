"""What a network returns, as a flat dictionary of named tensors; what it takes, as a tuple."""

from typing import Any

import torch

from prunus.errors import DeployError
from prunus.modules.tree import items

Inputs = torch.Tensor | tuple[torch.Tensor, ...]


def named_outputs(output: Any) -> dict[str, torch.Tensor]:
    """Return the tensors of `output` (a tensor, or nested dictionaries, tuples and lists of them) by name.

    A single tensor is "output"; a dictionary's entries are called by their keys, a tuple's "output_0",
    "output_1", ..., inner ones by both names joined with "_". The order is the network's own.

    Raises:
        DeployError: something in it is not a tensor, or two would be called the same.
    """
    pairs = _flatten("", output)
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
        DeployError: something in it is not a tensor.
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


def _flatten(name: str, value: Any) -> list[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        return [(name or "output", value)]
    children = items(value)
    if children is None or isinstance(value, set | frozenset):  # a set has no order
        raise DeployError(
            f"the network returns a {type(value).__name__} (as {name or 'its output'}): only tensors, and "
            "dictionaries, tuples and lists of them can be deployed; return tensors from forward"
        )
    name = name or ("output" if isinstance(value, tuple | list) else "")
    prefix = f"{name}_" if name else ""
    return [pair for key, child in children for pair in _flatten(f"{prefix}{key}", child)]
