"""DECIDE: what the network may cost, when it shrinks, and which groups go."""

from prunus.budget.budget import Budget
from prunus.budget.select import select

__all__ = ["Budget", "select"]
