"""Parameters and buffers of a network by path, and the precision and memory format of tensors."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from prunus.modules.hooks import parameter_hooks
from prunus.modules.tree import mapped

_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}  # by the number of dimensions


def named_tensors(model: nn.Module, *, every_path: bool = False) -> dict[str, Tensor]:
    """Return parameters, then buffers, by path; a tied tensor only by its first path, unless `every_path`."""
    parameters = model.named_parameters(remove_duplicate=not every_path)
    return {**dict(parameters), **dict(model.named_buffers(remove_duplicate=not every_path))}


def device_of(model: nn.Module) -> torch.device:
    """Return the device of the first parameter or buffer; the CPU for a module without any."""
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return torch.device("cpu")


def set_tensor_(model: nn.Module, path: str, tensor: Tensor) -> None:
    """Replace the parameter or buffer at `path`."""
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, tensor)


def in_float64(tree: Any) -> Any:
    """Return nested containers with all floating-point tensors in float64."""
    return mapped(lambda leaf: leaf.double() if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf, tree)


def parameter_like(values: Tensor, like: nn.Parameter) -> nn.Parameter:
    """Return `values` as a parameter with the `requires_grad`, the hooks and the attributes of `like`."""
    hooks = parameter_hooks(like)
    result = nn.Parameter(values, requires_grad=like.requires_grad or bool(hooks))  # torch refuses hooks on frozen ones
    for method, hook in hooks:
        getattr(result, method)(hook)
    vars(result).update(copy.deepcopy(vars(like)))
    result.requires_grad_(like.requires_grad)
    return result


def memory_format_of(tensor: Tensor) -> torch.memory_format:
    """Return the channels-last or the contiguous format; a tensor that fits both counts as contiguous."""
    last = _CHANNELS_LAST.get(tensor.dim())
    lies_so = last is not None and not tensor.is_contiguous() and tensor.is_contiguous(memory_format=last)
    return last if last is not None and lies_so else torch.contiguous_format


def channels_last(tensor: Tensor) -> Tensor:
    """Return `tensor` with its channels last in memory; unchanged where it has neither four nor five dimensions."""
    last = _CHANNELS_LAST.get(tensor.dim())
    return tensor if last is None else tensor.contiguous(memory_format=last)
