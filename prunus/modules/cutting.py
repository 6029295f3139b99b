"""Copies of a network in which some tensors are cut narrower."""

from collections import OrderedDict
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList, is_parametrized

from prunus.modules.copying import copied
from prunus.modules.hooks import mask_anew_
from prunus.modules.modes import evaluating
from prunus.modules.sizes import update_sizes
from prunus.modules.tensors import memory_format_of, named_tensors, parameter_like

Keep = Mapping[str, Mapping[int, Tensor]]  # path -> dimension -> indices that are kept, ascending

SLAB = 64  # indices of the first dimension that are cut at once


def narrowed(model: nn.Module, keep: Keep) -> nn.Module:
    """Return a copy of `model` with the tensors named in `keep` cut to the indices that are kept.

    Tied tensors stay tied; modes, `requires_grad`, dtype, device, memory format and hooks are kept. The sizes that
    torch's own layers keep as attributes follow their tensors.
    """
    tensors = named_tensors(model)
    new = {path: _like(tensors[path], cut(tensors[path], dims)) for path, dims in keep.items()}
    return with_tensors(model, new, keep)


def _like(tensor: Tensor, values: Tensor) -> Tensor:
    return parameter_like(values, tensor) if isinstance(tensor, nn.Parameter) else values


def with_tensors(
    model: nn.Module,
    new: Mapping[str, Tensor],
    keep: Keep,
    memo: Mapping[int, Any] | None = None,
    *,
    isolated: bool = False,
) -> nn.Module:
    """Return a copy of `model` with the tensors `new` in place of its own; sizes follow the tensors cut by `keep`.

    `memo` maps the id of any other object to its replacement; an `isolated` copy is run by Prunus alone.
    """
    tensors = named_tensors(model)
    known = _empty_containers(model) | dict(memo or {}) | {id(tensors[path]): tensor for path, tensor in new.items()}
    result = copied(model, known, isolated=isolated)
    for path in _owners(model, {id(tensors[path]) for path in keep}):
        module = result.get_submodule(path)
        mask_anew_(module)
        with evaluating(module) if is_parametrized(module) else nullcontext():  # reading its weight computes it
            update_sizes(module, keep.get(f"{path}.weight".lstrip("."), {}).get(0))
    return result


def _empty_containers(model: nn.Module) -> dict[int, Any]:
    """Return a memo with new empty containers: modules keep a dozen each for hooks; `copy.deepcopy` is slow on them."""
    values = [value for module in model.modules() for value in vars(module).values()]
    return {id(value): type(value)() for value in values if type(value) in (OrderedDict, dict, set, list) and not value}


def cut(tensor: Tensor, dims: Mapping[int, Tensor]) -> Tensor:
    """Return a copy of `tensor` with the given indices of the given dimensions, in its memory format."""
    result = _selected(tensor.detach(), {dim: dims[dim].to(tensor.device) for dim in sorted(dims)})
    return result.contiguous(memory_format=memory_format_of(tensor))


def _selected(tensor: Tensor, dims: dict[int, Tensor]) -> Tensor:
    """Select the given indices one slab at a time: allocating a half-cut copy would take longer than the cut."""
    if len(dims) < 2:
        return tensor.index_select(*next(iter(dims.items()))) if dims else tensor
    first, *others = dims
    result = tensor.new_empty([dims[d].numel() if d in dims else size for d, size in enumerate(tensor.shape)])
    for indices, place in zip(torch.split(dims[first], SLAB), torch.split(result, SLAB, first), strict=True):
        slab = tensor.index_select(first, indices)
        for dim in others:
            slab = slab.index_select(dim, dims[dim])
        place.copy_(slab)
    return result


def _owners(model: nn.Module, tensors: set[int]) -> list[str]:
    """Return the paths of the modules that hold one of `tensors` (ids); a tied tensor has several, and a parametrised
    weight belongs to the layer that computes it."""
    paths: dict[str, None] = {}
    for path, module in model.named_modules():
        held = (*module.parameters(recurse=False), *module.buffers(recurse=False))
        if any(id(tensor) in tensors for tensor in held):
            inside = isinstance(module, ParametrizationList)
            paths[path.rpartition(".parametrizations.")[0] if inside else path] = None
    return list(paths)
