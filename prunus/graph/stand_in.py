"""A copy of a network to be read in its place: on the meta device or on numbers, some channels narrower."""

import copy
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from prunus.graph.attributes import set_
from prunus.modules.cutting import Keep, copied, cut

Setting = tuple[str, str, int, int]  # path of a module, name of an attribute, index in it or -1, value


def stand_in(model: nn.Module, keep: Keep, settings: Iterable[Setting], *, with_values: bool) -> nn.Module:
    """Return a copy of `model` whose code may run without a trace in the original.

    Args:
        model: the network.
        keep: the indices of tensors that stay; all others stay whole.
        settings: attributes that count channels, as they are to be.
        with_values: parameters and floating-point buffers have their numbers; else they are on the meta device.
            Other buffers (index tables) have theirs in any case.
    """
    tensors = dict[int, Tensor]()
    for path, tensor in (*model.named_parameters(), *model.named_buffers()):
        tensors[id(tensor)] = _copy(tensor, keep.get(path, {}), with_values=with_values)
    for tensor in _kept(model):
        tensors.setdefault(id(tensor), tensor.detach())
    result = copied(model, tensors, keep)
    for path, name, item, value in settings:
        set_(result, path, name, item, value)
    return result


def _copy(tensor: Tensor, dims: Mapping[int, Tensor], *, with_values: bool) -> Tensor:
    if not tensor.is_floating_point() and not tensor.is_complex():
        result = cut(tensor, dims) if dims else tensor.detach()
    elif with_values:
        result = cut(tensor, dims) if dims else tensor.detach().clone()
    else:
        shape = [dims[d].numel() if d in dims else size for d, size in enumerate(tensor.shape)]
        result = torch.empty(shape, dtype=tensor.dtype, device="meta")
    if isinstance(tensor, nn.Parameter):
        result = nn.Parameter(result, requires_grad=tensor.requires_grad)
        vars(result).update(vars(tensor))  # what people mark parameters with
    return result


def _kept(model: nn.Module) -> Iterator[Tensor]:
    """Yield the tensors that modules keep as plain attributes, in containers too."""
    waiting = [value for module in model.modules() for value in vars(module).values()]
    seen = set[int]()
    while waiting:
        value = waiting.pop()
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, Mapping | list | tuple | set) and value and id(value) not in seen:
            seen.add(id(value))
            waiting.extend(value.values() if isinstance(value, Mapping) else value)


def fed(value: Any, *, with_values: bool) -> Any:
    """Return arguments with a copy of each tensor: on the meta device, or with its numbers."""
    if isinstance(value, Tensor):
        return value.detach().clone() if with_values else value.detach().to("meta")
    if isinstance(value, dict):
        result = copy.copy(value)
        result.update({key: fed(item, with_values=with_values) for key, item in value.items()})
        return result
    if isinstance(value, list | tuple):
        items = [fed(item, with_values=with_values) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value
