"""DECIDE: the network's budget, when it shrinks, and which channel groups are removed."""

from prunus.budget.budget import Budget
from prunus.budget.select import select

__all__ = ["Budget", "select"]
