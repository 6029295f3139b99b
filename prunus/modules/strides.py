"""Tensors that do not change along a dimension: held once, with a stride of zero."""

import torch
from torch import Tensor

MANY = 1 << 14  # values of a constant that are worth being held once, and forgotten


def compact(values: Tensor, known: list[Tensor]) -> Tensor:
    """Return a constant with a stride of zero along each dimension in which it does not change, where it is large.

    Large ones are kept in `known`, and one that equals another is that one: the blocks of a network mask alike.
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
    """Squeeze `values` to size 1 along each dimension in which they lie in the same memory."""
    for dim, (size, stride) in enumerate(zip(values.shape, values.stride(), strict=True)):
        if size > 1 and stride == 0:
            values = values.narrow(dim, 0, 1)
    return values


def varying_dims(labels: Tensor) -> tuple[Tensor, list[int]]:
    """Squeeze `labels` to size 1 along each dimension in which they do not change; return the rest's numbers."""
    labels = held_once(labels)
    varying = []
    for dim, size in enumerate(labels.shape):
        if size > 1:
            first = labels.narrow(dim, 0, 1)
            if torch.equal(labels, first.expand_as(labels)):  # which stops where they differ
                labels = first
            else:
                varying.append(dim)
    return labels, varying


def same_values(first: Tensor | None, second: Tensor | None) -> bool:
    """Whether two constants have the same values, as far as they are known; of other sizes, where each is alike
    everywhere."""
    if first is None or second is None:
        return True
    if first.shape != second.shape:
        first, second = varying_dims(first)[0], varying_dims(second)[0]
    first, second = held_once(first), held_once(second)
    return first.shape != second.shape or not first.numel() or torch.equal(first, second)
