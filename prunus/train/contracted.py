"""Expanded layers computed through their contracted kernels: training at nearly the narrow network's cost.

The factors of an expanded layer compute x -> L (K (F x)). `through_kernels` first computes the kernel W = L K F and
applies W alone to the images: the same outputs and, by the chain rule, the same gradients of L, K and F up to
rounding, without the wide feature maps in between. The product costs the same for any batch and image size, so this
pays for convolutions; linear layers, which are applied once per image, stay as they are.
"""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from prunus.modules.hooks import is_hooked
from prunus.modules.kinds import Conv, TransposedConv, members
from prunus.modules.tensors import named_tensors, set_tensor_
from prunus.surgery import Factors
from prunus.surgery.contract import product
from prunus.surgery.factors import is_pad
from prunus.surgery.filters import computed, itself


def expanded(model: nn.Module) -> list[Factors]:
    """Return the modules that replace expanded layers, outermost ones only."""
    found = [each for each in model.modules() if isinstance(each, Factors) and each.origin == "expand"]
    inner = {id(module) for each in found for module in each.modules() if module is not each}
    return [each for each in found if id(each) not in inner]


@contextlib.contextmanager
def through_kernels(model: nn.Module) -> Iterator[None]:
    """Within the context, compute the expanded convolutions of `model` through their kernels; run backward in it too.

    A layer without a single kernel is computed factor by factor: one with a ReLU or a user's module between its
    factors, or with a factor that is parametrised or has hooks.
    """
    layers = [each for each in expanded(model) if _has_kernel(each)]
    for layer in layers:
        layer.shortcut = functools.partial(_through_kernel, layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.shortcut


def _has_kernel(layer: Factors) -> bool:
    inside = [module for module in layer.modules() if not isinstance(module, Factors)]
    plain = all(type(module) in members(Conv | TransposedConv) or is_pad(module) for module in inside)
    return plain and not any(is_hooked(module) for module in layer.modules() if module is not layer)


def _through_kernel(layer: Factors, images: Tensor) -> Tensor:
    with torch.autocast(images.device.type, enabled=False):
        part = product(layer, numbers=itself)  # autocast would round the factors first
    return computed(part, images)


def last_layer(module: nn.Module) -> Any:
    """Return the last submodule with a weight: a layer itself, or the one after a padding or other factors."""
    return [each for each in module.modules() if getattr(each, "weight", None) is not None][-1]


def share_(model: nn.Module, small: nn.Module) -> None:
    """Let `small` share the parameters and buffers of `model` at equal paths; tied tensors stay tied."""
    own = named_tensors(model, every_path=True)
    for path in named_tensors(small, every_path=True).keys() & own.keys():
        set_tensor_(small, path, own[path])
