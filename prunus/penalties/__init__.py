"""SHAPE: penalties under which a network learns zero channel groups and low ranks, as proximal steps."""

from prunus.penalties.combined import Combined
from prunus.penalties.group_lasso import BoundGroupLasso, GroupLasso
from prunus.penalties.importance import taylor
from prunus.penalties.interface import BoundPenalty, Penalty, Shrinkage
from prunus.penalties.nuclear_norm import NuclearNorm
from prunus.penalties.orthogonality import Orthogonality
from prunus.penalties.slices import GroupSlices
from prunus.penalties.sparse_group_lasso import SparseGroupLasso

__all__ = [
    "BoundGroupLasso",
    "BoundPenalty",
    "Combined",
    "GroupLasso",
    "GroupSlices",
    "NuclearNorm",
    "Orthogonality",
    "Penalty",
    "Shrinkage",
    "SparseGroupLasso",
    "taylor",
]
