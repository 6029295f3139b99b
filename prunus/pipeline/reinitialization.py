"""Reinitialise the narrow architecture with fresh weights, for training from scratch (GTC 2019, slide 88)."""

import math
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn

from prunus.errors import RecipeError
from prunus.modules.copying import copied
from prunus.modules.kinds import LinearLayer

UNIFORM_GAIN = 1 / math.sqrt(3)  # of torch's own initialisation: std = gain / sqrt(fan-in)


@torch.no_grad()
def reinitialized(narrow: nn.Module, built: nn.Module, seed: int) -> nn.Module:
    """Return a copy of `narrow` with fresh weights, scaled as in `built`.

    A network may have an initialisation of its own (He et al. 2015, ...). For a fair comparison each layer of `narrow`
    gets the gain std(W) sqrt(fan-in) of the layer as built; layers that replaced one layer share its gain.

    Raises:
        RecipeError: a module with parameters has no `reset_parameters`.
    """
    torch.manual_seed(seed)
    model = copied(narrow)
    layers = {path: module for path, module in built.named_modules() if isinstance(module, LinearLayer)}
    origins = {path: _origin(path, layers) for path, module in model.named_modules() if isinstance(module, LinearLayer)}
    for path, module in model.named_modules():
        if not list(module.parameters(recurse=False)):
            continue
        reset = getattr(module, "reset_parameters", None)
        if reset is None:
            raise RecipeError(
                f"from_scratch: {path or 'the network itself'} ({type(module).__name__}) has parameters and no "
                "reset_parameters() to initialise them: give it one, or set from_scratch: false"
            )
        reset()
        origin = origins.get(path)
        if origin is not None:
            _like_(module, layers[origin], list(origins.values()).count(origin))
    return model


def _origin(path: str, layers: Collection[str]) -> str | None:
    """Return the path of the original layer that the layer at `path` is, or replaces; None if there is none."""
    parts = path.split(".")
    return next((p for p in (".".join(parts[:end]) for end in range(len(parts), 0, -1)) if p in layers), None)


def _like_(module: Any, built: Any, count: int) -> None:
    gain = float(built.weight.std()) * math.sqrt(_fan_in(built))
    module.weight.mul_((gain / UNIFORM_GAIN) ** (1 / count))
    if module.bias is not None and built.bias is not None and not bool(built.bias.any()):
        module.bias.zero_()


def _fan_in(module: Any) -> int:
    weight: Tensor = module.weight
    return weight[0].numel()  # as torch counts it, also for transposed convolutions
