"""SHAPE: what presses a network into groups that can go, while it learns."""

from prunus.penalties.group_lasso import BoundGroupLasso, GroupLasso
from prunus.penalties.importance import taylor
from prunus.penalties.slices import GroupSlices, producers

__all__ = ["BoundGroupLasso", "GroupLasso", "GroupSlices", "producers", "taylor"]
