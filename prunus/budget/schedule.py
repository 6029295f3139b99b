"""When a network shrinks: the schedule of segments, and where in it a training is.

A training is a number of periods: epochs, or stretches of a given number of steps. Segments are whole periods, so that
the schedule is the same whatever a period is. Settings and state are apart: `Schedule` is frozen, `Clock` moves.
"""

import dataclasses

from prunus.budget.controller import Controller
from prunus.errors import RecipeError


@dataclasses.dataclass(kw_only=True)
class Clock:
    """Where a training is; plain data.

    Attributes:
        period: periods done.
        step: optimizer steps done in the running period.
        steps_per_period: None where it is not known yet.
        chosen: the groups to press in the running period are chosen.
        widths: that selection would have left at the start of each of the last periods.
        settled_at: the period at which the pressure began, where it waits until the widths settle.
    """

    period: int = 0
    step: int = 0
    steps_per_period: int | None = None
    chosen: bool = False
    widths: list[list[int]] = dataclasses.field(default_factory=list)
    settled_at: int | None = None

    def next_period(self) -> None:
        """Begin the next period; as many steps are expected as the last one had, where nobody gives their number."""
        self.steps_per_period = self.steps_per_period or self.step or None
        self.period, self.step, self.chosen = self.period + 1, 0, False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule:
    """The segments of a training.

    Attributes:
        controller: the settings.
        periods: of the whole training; None: not known, there are no segments.
        length: steps of a period; None: somebody says when one ends.
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
        """Return the progress to the running budget, in (0, 1], at the end of the segment that begins with the running
        period, None where none does."""
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
        """Whether the last segment of a budget ended with the period before the running one, and another follows."""
        earlier = dataclasses.replace(clock, period=clock.period - 1)
        return self.passed(earlier) < self.passed(clock) < len(self.controller.sequence)

    def periods_left(self, clock: Clock) -> int:
        """Return the periods left in the running segment, the running one included; 0 outside all segments."""
        first, every, num = self._segments(clock)
        since = clock.period - first
        return every - since % every if 0 <= since < every * num else 0

    def steps_left(self, clock: Clock) -> int:
        """Return the steps left in the running segment, the next one included; 0 outside all segments, and where the
        number of steps in a period is not known."""
        left, length = self.periods_left(clock), self.length or clock.steps_per_period
        return max(1, left * length - clock.step) if left and length else 0

    def has_ended(self, clock: Clock) -> bool:
        """Whether the running period has as many steps as it should, where that is known by the schedule."""
        return self.length is not None and clock.step >= self.length

    def _bounds(self, number: int, num: int) -> tuple[int, int]:
        """Return the segments of `num` in all between which the network shrinks to budget `number`."""
        budgets = len(self.controller.sequence)
        return number * num // budgets, (number + 1) * num // budgets

    def _segments(self, clock: Clock) -> tuple[int, int, int]:
        return (0, 1, 0) if self.periods is None else self.controller.segments(self.periods, clock.settled_at)
