"""Copy a module with some of its tensors cut narrower, everything else as it was."""

import copy
from collections import OrderedDict
from collections.abc import Iterator, Mapping
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


def copied(model: nn.Module, tensors: Mapping[int, Tensor], keep: Keep) -> nn.Module:
    """Return a deep copy of `model` with other tensors in the place of its own.

    What cannot be copied (a lock, an open file) is shared.

    Args:
        model: the network.
        tensors: the tensor that takes a tensor's place, by the id of that one.
        keep: which of them are narrower: the sizes that torch's own layers keep follow.
    """
    memo: dict[int, object] = {**_memo(model), **tensors}
    named = (*model.named_parameters(), *model.named_buffers())
    owners = _owners(model, {id(tensor) for path, tensor in named if path in keep})
    try:
        result = copy.deepcopy(model, dict(memo))
    except (TypeError, RuntimeError):
        memo.update({id(value): value for value in _uncopyable(model, memo)})
        result = copy.deepcopy(model, memo)
    _update_sizes(result, owners)
    return result


def _uncopyable(model: nn.Module, memo: Mapping[int, object]) -> Iterator[object]:
    """Yield the attributes of modules that `copy.deepcopy` refuses."""
    modules = {id(module): module for module in model.modules()}
    for module in modules.values():
        for name, value in vars(module).items():
            if name not in ("_parameters", "_buffers", "_modules"):
                try:
                    copy.deepcopy(value, {**memo, **modules})
                except (TypeError, RuntimeError):
                    yield value


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
