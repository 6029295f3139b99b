"""What the deployed network may cost."""

import dataclasses
import math

import torch
from torch import Tensor

from prunus.errors import BudgetError
from prunus.graph import ChannelGroups


@dataclasses.dataclass(frozen=True, kw_only=True)
class Budget:
    """An upper bound on cost: a share of the traced network's where it is at most 1, else absolute.

    Attributes:
        macs: multiply-adds at the traced input's size.
        params: parameters.
        min_share: no layer falls below this share of its channels. At 0, a training may empty the layers with a skip
            around them (`prunus.surgery.skippable`), and the depth is learned too; all others keep two.
        multiple_of: a layer's channels are removed so that their number stays a multiple of this, as the
            target's kernels like it; 1 leaves it free.
    """

    macs: float | None = None
    params: float | None = None
    min_share: float = 0.1
    multiple_of: int = 1

    def __post_init__(self) -> None:
        for name in ("macs", "params"):
            value = getattr(self, name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
                raise BudgetError(f"Budget.{name} is {value!r}: it must be above zero (a share up to 1, or a number)")
            if value > 1 and value != round(value):
                raise BudgetError(
                    f"Budget.{name} is {value!r}: a share of the wide network's is at most 1 (0.4 means 40 %), what is "
                    f"above is the number of {name}, a whole one"
                )
        if self.macs is None and self.params is None:
            raise BudgetError(
                "Budget bounds nothing: give macs=..., params=... or both (0.4 means 40 % of the wide network's)"
            )
        if not 0 <= self.min_share <= 1 or self.multiple_of < 1:
            raise BudgetError(f"Budget.min_share must lie in [0, 1] and multiple_of be at least 1: {self}")

    def absolute(self, groups: ChannelGroups) -> dict[str, float]:
        """Return the bounds as numbers: {"macs": ...} and / or {"params": ...}, shares taken of `groups`' network."""
        bounds = {}
        for kind in ("macs", "params"):
            value = getattr(self, kind)
            if value is not None:
                bounds[kind] = value * groups.cost.total(kind, groups.all_alive()) if value <= 1 else value
        return bounds


def excess(groups: ChannelGroups, alive: Tensor, bounds: dict[str, float]) -> float:
    """Return how far above `bounds` the network with the groups `alive` is: max over kinds of cost / bound - 1."""
    return max(groups.cost.total(kind, alive) / bound - 1 for kind, bound in bounds.items())


def layer_sizes(groups: ChannelGroups) -> dict[str, int]:
    """Return how many groups each layer makes."""
    made = groups.layers[groups.layers >= 0]
    counts = torch.bincount(made, minlength=len(groups.layer_names))
    return {name: int(count) for name, count in zip(groups.layer_names, counts, strict=True)}
