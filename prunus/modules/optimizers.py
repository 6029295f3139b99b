"""Optimizers inside trainers' wrappers."""

from typing import Any

from torch.optim import Optimizer


def unwrapped(optimizer: Any) -> Any:
    """Return torch's optimizer inside a trainer's wrapper (accelerate, Lightning)."""
    inner = getattr(optimizer, "optimizer", None)
    return unwrapped(inner) if isinstance(inner, Optimizer) else optimizer
