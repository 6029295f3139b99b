"""A copy of a network to run in its place: on the meta device or with values, and with some channels removed."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from prunus.modules.attributes import kept
from prunus.modules.cutting import Keep, cut, with_tensors
from prunus.modules.numbers import set_number_
from prunus.modules.tensors import named_tensors, parameter_like
from prunus.modules.tree import leaves, mapped

Setting = tuple[str, str, int, int]  # path of a module, name of an attribute, index in it or -1, value


def stand_in(
    model: nn.Module, keep: Keep, settings: Iterable[Setting], *, with_values: bool, with_masks: bool = True
) -> nn.Module:
    """Return a copy of `model` whose code can run without changing the original.

    Args:
        model: the network.
        keep: the indices of tensors that are kept; tensors not named are kept whole.
        settings: the new values of attributes that count channels.
        with_values: keep the values of parameters and floating-point buffers; otherwise these are on the meta device.
            Integer buffers (index tables) always keep their values.
        with_masks: keep the values of boolean buffers.
    """
    new = {
        path: _copy(tensor, keep.get(path, {}), with_values=with_values, with_masks=with_masks)
        for path, tensor in named_tensors(model).items()
    }
    attributes = {id(tensor): tensor.detach() for tensor in _kept(model)}
    result = with_tensors(model, new, keep, attributes, isolated=True)
    for path, name, item, value in settings:
        set_number_(result, path, name, item, value)
    return result


def is_mask(buffer: Tensor) -> bool:
    """Return whether a buffer holds a flag for each of several elements, such as the channels."""
    return buffer.dtype == torch.bool and buffer.dim() > 0


def _copy(tensor: Tensor, dims: Mapping[int, Tensor], *, with_values: bool, with_masks: bool) -> Tensor:
    if not (tensor.is_floating_point() or tensor.is_complex() or (is_mask(tensor) and not with_masks)):
        result = cut(tensor, dims) if dims else tensor.detach()
    elif with_values:
        result = cut(tensor, dims) if dims else tensor.detach().clone()
    else:
        shape = [dims[d].numel() if d in dims else size for d, size in enumerate(tensor.shape)]
        result = torch.empty(shape, dtype=tensor.dtype, device="meta")
    return parameter_like(result, tensor) if isinstance(tensor, nn.Parameter) else result


def _kept(model: nn.Module) -> Iterator[Tensor]:
    """Yield the tensors that modules keep as plain attributes, including those in containers."""
    for module in model.modules():
        for _, value in kept(module):
            yield from (leaf for leaf in leaves(value) if isinstance(leaf, Tensor))


def fed(arguments: Any, *, with_values: bool) -> Any:
    """Return arguments with a copy of each tensor: on the meta device, or with its values."""

    def copy(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        return leaf.detach().clone() if with_values else leaf.detach().to("meta")

    return mapped(copy, arguments)
