"""Proximal operators: pure mathematics, tensor to tensor."""

import torch
from torch import Tensor


def soft_threshold(values: Tensor, threshold: float | Tensor) -> Tensor:
    """Return prox of threshold * ||.||_1: sign(x) max(0, |x| - threshold), elementwise (Donoho 1995)."""
    return values.sign() * (values.abs() - threshold).clamp(min=0)


def group_shrinkage(norms: Tensor, thresholds: Tensor) -> Tensor:
    """Return the factors that shrink groups of the given norms: max(0, 1 - threshold / norm), 0 for a group of norm 0.

    Multiplying a group by its factor is the prox of threshold * ||.||_2 (Yuan & Lin 2006). Both arguments and the
    result have shape [num_groups]; thresholds are >= 0, infinity included.
    """
    safe = torch.where(norms > 0, norms, torch.ones_like(norms))
    return torch.where(norms > 0, (1 - thresholds / safe).clamp(min=0), torch.zeros_like(norms))
