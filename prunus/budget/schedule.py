"""When a network shrinks: the schedule of segments, and the position of a training in it.

A training is a number of periods: epochs, or stretches of a given number of steps. Segments are whole periods, so the
same schedule serves both. Settings and state are separate: `Schedule` is frozen, `Clock` moves.
"""

import dataclasses

from prunus.budget.controller import Controller
from prunus.errors import RecipeError


@dataclasses.dataclass(kw_only=True)
class Clock:
    """The position of a training; plain data.

    Attributes:
        period: periods done.
        step: optimizer steps done in the running period.
        steps_per_period: optimizer steps in a period; None: not known yet.
        chosen: whether the running period's groups have been chosen.
        widths: the widths that selection would have left at the start of each of the last periods.
        settled_at: the period at which the pressure began, where it waits for stable widths.
    """

    period: int = 0
    step: int = 0
    steps_per_period: int | None = None
    chosen: bool = False
    widths: list[list[int]] = dataclasses.field(default_factory=list)
    settled_at: int | None = None

    def next_period(self) -> None:
        """Begin the next period; where the steps per period are unknown, expect as many as the last period had."""
        self.steps_per_period = self.steps_per_period or self.step or None
        self.period, self.step, self.chosen = self.period + 1, 0, False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule:
    """The segments of a training.

    Attributes:
        controller: the settings.
        periods: periods of the whole training; None: not known, so there are no segments.
        length: steps of a period; None: the caller ends each period.
    """

    controller: Controller
    periods: int | None
    length: int | None = None

    def __post_init__(self) -> None:
        num_budgets = len(self.controller.sequence)
        if num_budgets == 1:
            return
        latest = None if self.periods is None else self.controller.window(self.periods)[1]
        num = 0 if self.periods is None else self.controller.segments(self.periods, latest)[2]
        if num < num_budgets:
            raise RecipeError(
                f"{num_budgets} budgets need a segment each, and the training has {num} segments: train for more "
                "epochs, or give shrink.begin and shrink.end further apart, or a smaller shrink.every"
            )

    def is_over(self, clock: Clock) -> bool:
        """Whether the last segment has ended."""
        if self.periods is None:
            return False
        first, every, num = self._segments(clock)
        return clock.period >= first + every * num

    def beginning(self, clock: Clock) -> float | None:
        """Return the progress towards the running budget, in (0, 1], at the end of the segment that begins with the
        running period; None where no segment begins."""
        first, every, num = self._segments(clock)
        since = clock.period - first
        if since < 0 or since >= every * num or since % every:
            return None
        before, end = self._bounds(self.passed(clock), num)
        return (since // every + 1 - before) / (end - before)

    def passed(self, clock: Clock) -> int:
        """Return the number of budgets whose segments have ended."""
        first, every, num = self._segments(clock)
        ends = (self._bounds(number, num)[1] for number in range(len(self.controller.sequence)))
        return sum(clock.period >= first + every * end for end in ends) if num else 0

    def has_just_passed(self, clock: Clock) -> bool:
        """Whether a budget's last segment ended with the period before the running one, and another budget follows."""
        earlier = dataclasses.replace(clock, period=clock.period - 1)
        return self.passed(earlier) < self.passed(clock) < len(self.controller.sequence)

    def periods_left(self, clock: Clock) -> int:
        """Return the periods left in the running segment, including the running one; 0 outside all segments."""
        first, every, num = self._segments(clock)
        since = clock.period - first
        return every - since % every if 0 <= since < every * num else 0

    def steps_left(self, clock: Clock) -> int:
        """Return the steps left in the running segment, including the next one; 0 outside all segments, or where the
        number of steps per period is not known."""
        left, length = self.periods_left(clock), self.length or clock.steps_per_period
        return max(1, left * length - clock.step) if left and length else 0

    def has_ended(self, clock: Clock) -> bool:
        """Whether the running period is complete, for a schedule that knows the length of a period."""
        return self.length is not None and clock.step >= self.length

    def _bounds(self, number: int, num: int) -> tuple[int, int]:
        """Return the first segment and the end of the segments, out of `num`, that shrink to budget `number`."""
        budgets = len(self.controller.sequence)
        return number * num // budgets, (number + 1) * num // budgets

    def _segments(self, clock: Clock) -> tuple[int, int, int]:
        return (0, 1, 0) if self.periods is None else self.controller.segments(self.periods, clock.settled_at)
