"""Prunus: grow wide, ship narrow."""

from prunus.budget import Budget, check_removal, select
from prunus.errors import PrunusError
from prunus.graph import trace
from prunus.penalties import GroupLasso
from prunus.surgery import Plan, apply, carry_, load, save

__all__ = [
    "Budget",
    "GroupLasso",
    "Plan",
    "PrunusError",
    "apply",
    "carry_",
    "check_removal",
    "load",
    "save",
    "select",
    "trace",
]
