"""Tensors that do not change along a dimension: stored once, with a stride of zero."""

import torch
from torch import Tensor

MANY = 1 << 14  # values from which on a constant is stored once


def compact(values: Tensor, known: list[Tensor]) -> Tensor:
    """Return a constant; a large one has a stride of zero along each dimension in which it does not change.

    Large constants are kept in `known`, and equal ones share memory: the blocks of a network use the same masks.
    """
    values = values.detach().cpu()
    if values.numel() < MANY:
        return values
    once, _ = varying_dims(values)
    alike = (each for each in known if each.shape == once.shape and each.dtype == once.dtype)
    found = next((each for each in alike if torch.equal(each, once)), None)
    if found is None:
        known.append(found := once.clone())
    return found.expand(values.shape)


def held_once(values: Tensor) -> Tensor:
    """Narrow `values` to size 1 along each dimension with a stride of zero."""
    for dim, (size, stride) in enumerate(zip(values.shape, values.stride(), strict=True)):
        if size > 1 and stride == 0:
            values = values.narrow(dim, 0, 1)
    return values


def varying_dims(labels: Tensor) -> tuple[Tensor, list[int]]:
    """Narrow `labels` to size 1 in each dimension along which they do not change; return also the other dimensions."""
    labels = held_once(labels)
    varying = []
    for dim, size in enumerate(labels.shape):
        if size > 1:
            first = labels.narrow(dim, 0, 1)
            if torch.equal(labels, first.expand_as(labels)):  # stops at the first difference
                labels = first
            else:
                varying.append(dim)
    return labels, varying


def same_values(first: Tensor | None, second: Tensor | None) -> bool:
    """Return whether two constants have the same values, as far as both are known. Where shapes differ, dimensions in
    which each does not change are narrowed to size 1; shapes that differ even then count as the same."""
    if first is None or second is None:
        return True
    if first.shape != second.shape:
        first, second = varying_dims(first)[0], varying_dims(second)[0]
    first, second = held_once(first), held_once(second)
    return first.shape != second.shape or not first.numel() or torch.equal(first, second)
