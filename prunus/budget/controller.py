"""The controller: which groups are under pressure, and how hard, so that the budget is met and not passed.

The shrinking part of a training is cut into segments. At the beginning of a segment a target between today's cost
and the budget says which groups `victims` would remove, by what training has shown of their importance; all other
groups are exempt. In each step of the segment the group lasso's threshold of a victim of norm n with k steps left,
this one included, is n / k. So its norm falls in a straight line, against whatever the gradient says, and is
zero at the segment's end, exactly. Removal then costs nothing, and the widths are just those of the target.
"""

import dataclasses
from collections.abc import Collection

import torch
from torch import Tensor

from prunus.budget.budget import Budget
from prunus.budget.greedy_selection import floors, victims
from prunus.errors import RecipeError
from prunus.graph import ChannelGroups


@dataclasses.dataclass(frozen=True, kw_only=True)
class Controller:
    """Settings: the budget and when to reach it.

    Attributes:
        budget: what the network may cost in the end.
        begin: share of the training before the first pressure; the network learns freely.
        end: share of the training at which the budget is met; what stays then learns without penalty.
        every: epochs in a segment; the network shrinks at each segment's end.
        settled: in (0, 1]: the pressure waits until the network that selection would leave resembles those of the five
            epochs before by so much (`width_stability.py`; 0.98 or so), from `begin` on, and until one segment is left
            before `end` at most. None: it begins at `begin`.
    """

    budget: Budget = Budget(macs=0.4)  # noqa: RUF009 - frozen
    begin: float = 0.1
    end: float = 0.5
    every: int = 1
    settled: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.begin < self.end <= 1 or self.every < 1:
            raise RecipeError(
                f"shrink: begin {self.begin}, end {self.end}, every {self.every}: 0 <= begin < end <= 1 and every >= 1"
            )

        if self.settled is not None and not 0 < self.settled <= 1:
            raise RecipeError(f"shrink.settled is a similarity in (0, 1], not {self.settled}")

    def window(self, epochs: int) -> tuple[int, int]:
        """Return the first epoch that may be under pressure (from 0), and the last at which pressure may begin."""
        first = min(round(self.begin * epochs), epochs - 1)
        last = max(first + 1, round(self.end * epochs))
        return first, last - min(self.every, last - first)

    def segments(self, epochs: int, settled_at: int | None = None) -> tuple[int, int, int]:
        """Return the first epoch under pressure (from 0), the epochs a segment, and the number of segments.

        `settled_at` is the epoch at which the pressure began, where it waits for that; until then there are none.
        """
        first, latest = self.window(epochs)
        every = min(self.every, max(first + 1, round(self.end * epochs)) - first)
        last = latest + every
        if self.settled is not None:
            if settled_at is None:
                return epochs, every, 0
            first = settled_at
        return first, every, (last - first) // every


@dataclasses.dataclass(frozen=True, kw_only=True)
class Target:
    """Where the shrinking began and where it ends; fixed once, from the wide network's groups."""

    start: dict[str, float]  # cost before, by kind
    bounds: dict[str, float]  # the budget, by kind; of a latency, the multiply-adds that meet it, as far as is known
    floors: dict[str, int]  # groups that each layer keeps
    limit_ms: float | None = None  # of the latency, where the budget bounds it

    @classmethod
    def of(cls, groups: ChannelGroups, budget: Budget, skippable: Collection[str] = ()) -> "Target":
        """Fix the target for a wide network whose layers `skippable` may vanish, and raise `BudgetError` if it cannot
        be met."""
        bounds = budget.absolute(groups)
        if budget.is_timed:  # nothing is known before something is measured
            bounds.setdefault("macs", float(groups.macs()))
        target = cls(
            start={kind: float(groups.cost.total(kind, groups.all_alive())) for kind in bounds},
            bounds=bounds,
            floors=floors(groups, budget, skippable),
        )
        victims(groups, torch.ones(len(groups), dtype=torch.float64), bounds, target.floors, budget.multiple_of)
        return target

    def at(self, progress: float) -> dict[str, float]:
        """Return the bounds at `progress` in [0, 1]: cost falls fast at first, as (1 - progress)^3 (Zhu & Gupta
        2017), so that most of the training runs on a narrow network."""
        rest = (1 - progress) ** 3
        return {kind: bound + (self.start[kind] - bound) * rest for kind, bound in self.bounds.items()}


def press(groups: ChannelGroups, importance: Tensor, target: Target, progress: float, multiple_of: int) -> Tensor:
    """Return the groups to press to zero in the segment that ends at `progress`: bool [num_groups]."""
    return victims(groups, importance, target.at(progress), target.floors, multiple_of)


def thresholds(norms: Tensor, pressed: Tensor, steps_left: int) -> Tensor:
    """Return the step's thresholds, [num_groups]: norm / steps_left for pressed groups, 0 for all others."""
    return torch.where(pressed.to(norms.device), norms / steps_left, torch.zeros_like(norms))
