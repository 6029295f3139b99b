"""Copy a module with some of its tensors cut narrower, everything else as it was."""

import copy
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList, is_parametrized

from prunus.modules.modes import evaluating
from prunus.modules.sizes import update_sizes

Keep = Mapping[str, Mapping[int, Tensor]]  # path -> dimension -> indices that stay, ascending

SLAB = 64  # indices of the first dimension that are cut at once


def narrowed(model: nn.Module, keep: Keep) -> nn.Module:
    """Return a copy of `model` with the tensors named in `keep` cut to the indices that stay.

    Tied tensors stay tied, modes, `requires_grad`, dtype, device, memory format and hooks survive; the sizes that
    torch's own layers keep as attributes follow their tensors.
    """
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    memo = _memo(model)
    for path, dims in keep.items():
        tensor = tensors[path]
        smaller = cut(tensor, dims)
        if isinstance(tensor, nn.Parameter):
            smaller = nn.Parameter(smaller, requires_grad=tensor.requires_grad)
            smaller.__dict__.update(copy.deepcopy(tensor.__dict__))  # what people mark parameters with
        memo[id(tensor)] = smaller
    owners = _owners(model, {id(tensors[path]) for path in keep})
    result = copy.deepcopy(model, memo)
    _update_sizes(result, owners)
    return result


def shaped(model: nn.Module, keep: Keep, device: str | None = None) -> nn.Module:
    """Return a copy of `model` as `narrowed` makes it, for a look at its shapes alone.

    Tensors that are cut hold no values, the others are shared with `model`; on another device (meta) none has values.
    """
    memo = _memo(model)
    named = (*model.named_parameters(), *model.named_buffers())
    for path, tensor in named:
        dims = keep.get(path, {})
        if device is None and not dims:
            memo[id(tensor)] = tensor
            continue
        shape = [dims[d].numel() if d in dims else size for d, size in enumerate(tensor.shape)]
        empty = torch.empty(shape, dtype=tensor.dtype, device=device or tensor.device)
        parameter = isinstance(tensor, nn.Parameter)
        memo[id(tensor)] = nn.Parameter(empty, requires_grad=tensor.requires_grad) if parameter else empty
    result = copy.deepcopy(model, memo)
    owners = _owners(model, {id(tensor) for path, tensor in named if path in keep})
    _update_sizes(result, owners)
    return result


def _memo(model: nn.Module) -> dict[int, object]:
    """Return what `copy.deepcopy` need not look into: modules keep a dozen empty dictionaries for hooks each."""
    kept = (value for module in model.modules() for value in vars(module).values())
    return {id(value): type(value)() for value in kept if type(value) in (OrderedDict, dict, set, list) and not value}


def cut(tensor: Tensor, dims: Mapping[int, Tensor]) -> Tensor:
    """Return a copy of `tensor` with the given indices of the given dimensions, in its memory format."""
    result = _selected(tensor.detach(), {dim: dims[dim].to(tensor.device) for dim in sorted(dims)})
    for rank, memory_format in ((4, torch.channels_last), (5, torch.channels_last_3d)):
        if tensor.dim() == rank and not tensor.is_contiguous() and tensor.is_contiguous(memory_format=memory_format):
            return result.contiguous(memory_format=memory_format)
    return result.contiguous()


def _selected(tensor: Tensor, dims: dict[int, Tensor]) -> Tensor:
    """Return the given indices, a slab at a time: memory for a half-cut copy would take longer than the cut."""
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
    """Return the paths of the modules that hold one of `tensors` (by id); a tied tensor has several, and a
    parametrised weight belongs to the layer that computes it."""
    paths: dict[str, None] = {}
    for path, module in model.named_modules():
        held = (*module.parameters(recurse=False), *module.buffers(recurse=False))
        if any(id(tensor) in tensors for tensor in held):
            inside = isinstance(module, ParametrizationList)
            paths[path.rpartition(".parametrizations.")[0] if inside else path] = None
    return list(paths)


def _update_sizes(model: nn.Module, paths: list[str]) -> None:
    for path in paths:
        module = model.get_submodule(path)
        with evaluating(module) if is_parametrized(module) else nullcontext():  # reading its weight computes it
            update_sizes(module)
