"""DECIDE: what the network may cost, when it shrinks, and which channel groups are removed."""

from prunus.budget.budget import Budget
from prunus.budget.select import select

__all__ = ["Budget", "select"]
