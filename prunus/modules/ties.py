"""Ties: parameters and buffers that a network has under several paths."""

from torch import nn

from prunus.modules.tensors import named_tensors


def canonical_paths(model: nn.Module) -> dict[str, str]:
    """Return, for each path of a parameter or buffer, the first path of the same tensor."""
    first: dict[int, str] = {}
    return {path: first.setdefault(id(tensor), path) for path, tensor in named_tensors(model, every_path=True).items()}


def further_paths(model: nn.Module) -> dict[str, str]:
    """Return the first path of each tied tensor, by its further paths."""
    return {path: first for path, first in canonical_paths(model).items() if path != first}


def tied_with(model: nn.Module, module: nn.Module) -> str | None:
    """Return the path of another module that shares a parameter with `module`, None where there is none."""
    own = {id(parameter) for parameter in module.parameters(recurse=False)}
    path: str
    for path, other in model.named_modules():
        # Not `parameters()`, which takes ten times as long: this runs for each layer of a network.
        if other is not module and not own.isdisjoint(map(id, vars(other)["_parameters"].values())):
            return path
    return None
