"""Optimizers inside what trainers wrap around them."""

from typing import Any

from torch.optim import Optimizer


def unwrapped(optimizer: Any) -> Any:
    """Return the optimizer of torch inside what trainers wrap around it (accelerate, Lightning)."""
    inner = getattr(optimizer, "optimizer", None)
    return unwrapped(inner) if isinstance(inner, Optimizer) else optimizer
