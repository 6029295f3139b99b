"""The controller determines which channel groups are under pressure, and how strongly, so that the budget is met.

The shrinking part of a training is cut into segments. At the start of a segment, a goal between the current cost
and the budget determines which groups selection would remove, given their importance during training; all
other groups are exempt. In each step the group lasso's threshold of a pressed group of norm n with k steps left, this
one included, is n / k. Its norm thus falls linearly, whatever the gradient, and is exactly zero at the segment's end.
Removal then changes nothing, and the remaining widths are those of the goal.
"""

import dataclasses
from collections.abc import Collection
from typing import Literal

import torch
from torch import Tensor

from prunus.budget.budget import Budget
from prunus.budget.family import family_budgets
from prunus.budget.greedy_selection import floors
from prunus.budget.latency_model import KnownLatency
from prunus.budget.selection import selection
from prunus.errors import BudgetError, RecipeError
from prunus.graph import ChannelGroups

Pace = Literal["accurate", "fast"]
PACES: dict[Pace, tuple[float, float]] = {"accurate": (0.25, 0.6), "fast": (0.1, 0.4)}  # begin and end
BEGIN_ON_TRAINED = 0.1  # a trained network need not learn for a quarter of the training first


@dataclasses.dataclass(frozen=True, kw_only=True)
class Controller:
    """Settings: the budget and when to reach it.

    Attributes:
        budget: bounds on the final network's cost.
        pace: when to shrink, unless `begin` and `end` are given: "accurate" from 0.25 to 0.6 of the training, "fast"
            from 0.1 to 0.4, which trains in less time and loses more accuracy (numbers: `docs/methods/group_lasso.md`).
            A recipe whose training starts from trained weights begins at 0.1 with either.
        budgets: the budgets of a family of networks, from the largest to the smallest, in place of `budget`; a number
            is a share of the multiply-adds, with the other settings of `budget`. They share the segments
            equally: at the end of each budget's, a branch of the training continues with that network.
        begin: share of the training before the first pressure; until then the network learns freely.
        end: share of the training at which the budget is met; the remaining network then learns without a penalty.
        every: epochs per segment; the network shrinks at the end of each segment.
        settled: similarity in (0, 1]: from `begin` on, the pressure waits until the widths that selection would leave
            are at least this similar to those of the five epochs before (`width_stability.py`; try 0.98), at most until
            one segment is left before `end`. None: the pressure begins at `begin`.
    """

    budget: Budget = Budget(macs=0.4)  # noqa: RUF009 - frozen
    pace: Pace = "accurate"
    budgets: tuple[float | Budget, ...] = ()
    begin: float | None = None
    end: float | None = None
    every: int = 1
    settled: float | None = None

    def __post_init__(self) -> None:
        if self.pace not in PACES:
            raise RecipeError(f"shrink.pace is {self.pace!r}; choose one of {', '.join(PACES)}")
        for name in ("begin", "end", "settled"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
                raise RecipeError(f"shrink.{name} is {value!r}: it must be a number between 0 and 1")
        begin, end = self.shares
        if not 0 <= begin < end <= 1 or type(self.every) is not int or self.every < 1:
            raise RecipeError(
                f"shrink: begin {begin}, end {end}, every {self.every}: 0 <= begin < end <= 1, every >= 1"
            )
        if self.settled is not None and not 0 < self.settled <= 1:
            raise RecipeError(f"shrink.settled is a similarity in (0, 1], not {self.settled}")
        if self.budgets:
            object.__setattr__(self, "budgets", family_budgets(self.budget, self.budgets))
            object.__setattr__(self, "budget", self.sequence[-1])

    @property
    def sequence(self) -> tuple[Budget, ...]:
        """The budgets in the order in which the network passes them; the last one is `budget`."""
        return tuple(each for each in self.budgets if isinstance(each, Budget)) or (self.budget,)

    @property
    def shares(self) -> tuple[float, float]:
        """The shares of the training at which shrinking begins and ends."""
        begin, end = PACES[self.pace]
        return begin if self.begin is None else self.begin, end if self.end is None else self.end

    def on_trained(self) -> "Controller":
        """Return the settings for an already trained network: `begin` defaults to 0.1."""
        return dataclasses.replace(self, begin=BEGIN_ON_TRAINED) if self.begin is None else self

    def window(self, epochs: int) -> tuple[int, int]:
        """Return the first epoch (from 0) that may be under pressure, and the last at which pressure may begin."""
        begin, end = self.shares
        first = min(round(begin * epochs), epochs - 1)
        last = max(first + 1, round(end * epochs))
        return first, last - min(self.every * len(self.sequence), last - first)

    def segments(self, epochs: int, settled_at: int | None = None) -> tuple[int, int, int]:
        """Return the first epoch under pressure (from 0), the epochs per segment, and the number of segments.

        `settled_at` is the epoch at which the widths became stable, for settings with `settled`; None: not stable yet.
        """
        first, _ = self.window(epochs)
        last = max(first + 1, round(self.shares[1] * epochs))
        every = min(self.every, last - first)
        if self.settled is not None:
            if settled_at is None:
                return epochs, every, 0
            first = settled_at
        return first, every, (last - first) // every


@dataclasses.dataclass(frozen=True, kw_only=True)
class Goal:
    """Costs at the start and at the end of shrinking; determined once, from the wide network's groups."""

    start: dict[str, float]  # the wide network's cost, by kind
    bounds: dict[str, float]  # the budget, by kind; for a latency, the multiply-adds known so far to meet it
    floors: dict[str, int]  # groups that each layer keeps
    limit_ms: float | None = None  # bound on the latency, where the budget has one
    solver: str = "greedy"  # see `Budget.solver`
    passed: dict[str, float] | None = None  # cost at which the shrinking to this budget begins; None: `start`
    latency: KnownLatency | None = None  # under whose model segments are solved
    start_ms: float | None = None  # latency at the start, by the model

    @classmethod
    def of(cls, groups: ChannelGroups, budget: Budget, skippable: Collection[str] = ()) -> "Goal":
        """Return the goal for a wide network whose layers `skippable` may vanish.

        Raises:
            BudgetError: the budget cannot be met.
        """
        if budget.approximate:
            raise BudgetError(
                "Budget.approximate is for prunus.select: a cut in training must leave the outputs as they are. Select "
                "with it before, apply the plan, and train the network that comes out"
            )
        bounds = budget.absolute(groups)
        if budget.is_timed:  # no other bound is known before a measurement
            bounds.setdefault("macs", float(groups.macs()))
        goal = cls(
            start={kind: float(groups.cost.total(kind, groups.all_alive())) for kind in bounds},
            bounds=bounds,
            floors=floors(groups, budget, skippable),
            solver=budget.solver,
        )
        selection(budget.solver)(
            groups, torch.ones(len(groups), dtype=torch.float64), bounds, goal.floors, budget.multiple_of
        )
        return goal

    def at(self, progress: float) -> dict[str, float]:
        """Return the bounds at `progress` in [0, 1]: the excess over the budget falls as (1 - progress)^3 (Zhu & Gupta
        2017), so that most of the training runs on a narrow network."""
        rest, before = (1 - progress) ** 3, self.passed or self.start
        return {kind: bound + max(0.0, before[kind] - bound) * rest for kind, bound in self.bounds.items()}

    def milliseconds_at(self, progress: float) -> float:
        """Return the bound on a modelled latency at `progress`; it falls as the bounds of `at` do."""
        assert self.limit_ms is not None and self.start_ms is not None
        return self.limit_ms + (self.start_ms - self.limit_ms) * (1 - progress) ** 3


def press(groups: ChannelGroups, importance: Tensor, goal: Goal, progress: float, multiple_of: int) -> Tensor:
    """Return the groups to press to zero in the segment that ends at `progress`: bool [num_groups]."""
    return selection(goal.solver)(groups, importance, goal.at(progress), goal.floors, multiple_of)


def thresholds(norms: Tensor, pressed: Tensor, steps_left: int) -> Tensor:
    """Return the step's thresholds, [num_groups]: norm / steps_left for pressed groups, 0 for all others."""
    return torch.where(pressed.to(norms.device), norms / steps_left, torch.zeros_like(norms))
