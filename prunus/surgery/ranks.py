"""The rank of a layer's factors: given, or determined by a share of its singular values."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from prunus.errors import EditError
from prunus.surgery.filters import Filter, read
from prunus.surgery.svd import rank_of_energy


def chosen_rank(
    module: Any, rank: int | None, energy: float | None, full: int, matrices: Callable[[Filter], Tensor], place: str
) -> int:
    """Return `rank`, or the smallest rank with the share `energy` of the singular values of the layer's `matrices`.

    Raises:
        EditError: the rank is not in 1..`full`, the share not in (0, 1], or the layer has no values.
    """
    if energy is not None:
        if type(energy) not in (int, float) or not 0 < energy <= 1:
            raise EditError(f"energy is a share of the singular values in (0, 1], not {energy!r}")
        if module.weight.is_meta:
            raise EditError(f"{place} is on the meta device and has no singular values: give a rank")
        with torch.no_grad():
            rank = rank_of_energy(matrices(read(module, place)), energy, place)
    return check_rank(rank, full, place)


def check_rank(rank: int | None, full: int | None, place: str, name: str = "rank") -> int:
    """Return `rank`; refuse a rank below 1, or above `full` unless that is None."""
    if type(rank) is not int or rank < 1 or (full is not None and rank > full):
        bound = "at least 1" if full is None else f"in 1..{full}"
        raise EditError(f"{place}: the {name} must be a whole number {bound}, not {rank!r}")
    return rank
