"""Tied tensors: parameters and buffers that a network has under several paths."""

from torch import nn


def canonical_paths(model: nn.Module) -> dict[str, str]:
    """Return, for each path of a parameter or buffer, the first path of the same tensor (tied weights have several)."""
    first: dict[int, str] = {}
    tensors = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    return {path: first.setdefault(id(tensor), path) for path, tensor in tensors}
