"""`prunus.Shrinker`: shrink a network to its budget while it trains, in any training loop."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import torch
from torch import nn

from prunus.budget import Budget
from prunus.budget.controller import Pace
from prunus.budget.latency_search import Meter
from prunus.budget.schedule import Clock
from prunus.errors import TrainingError
from prunus.graph import ChannelGroups
from prunus.modules.given import Inputs, arguments
from prunus.modules.optimizers import unwrapped
from prunus.records import ShrinkRecord
from prunus.shrink import checks
from prunus.shrink.goal import goal_of
from prunus.shrink.meters import meters_of
from prunus.shrink.network import NetworkInTraining
from prunus.shrink.pressure import Importance, Pressure
from prunus.shrink.settings import controller_of, schedule_of
from prunus.shrink.state import ShrinkerState
from prunus.shrink.watch import OptimizerWatch
from prunus.surgery import Plan


@final
class Shrinker:
    """Shrink a network to a budget while it trains:

        shrinker = prunus.Shrinker(model, optimizer, example, budget=prunus.Budget(macs=0.4), steps=1000)
        for images, labels in loader:
            ...
            optimizer.step()
            shrinker.step()

    The model stays the same object: its layers get narrower tensors in place, and so do the optimizer's state, its
    parameter groups and the copies passed to `follow`: all at once or, on any failure, none.

    The training is divided into periods, and the shrinking part of it, from `begin` to `end`, into segments. At the
    start of a segment, selection determines by Taylor importance the channels to remove to reach the segment's cost.
    With k steps left in it, each step subtracts the share 1 / k of their norm, so that they are exactly zero at the
    segment's end, and are removed. The cost falls as (1 - progress)^3 and ends just under the budget.

    Args:
        model: any network that `prunus.trace` reads, or the part of a larger one that is to shrink.
        optimizer: any torch optimizer whose state has its parameters' shapes, wrapped by a trainer or not.
        example: the network's positional arguments; a tensor stands for a tuple of one.
        budget: bounds on the final network's cost; or several, from the largest to the smallest, reached in turn, each
            at the end of an equal part of the segments.
        steps: optimizer steps in the whole training; without `steps` and `epochs` only `finish()` cuts.
        epochs: epochs in the whole training, of any length: call `end_epoch()` after each. `steps` is then the expected
            number in all of them; without it, each epoch is expected to be as long as the one before.
        pace: when to shrink: "accurate", from 0.25 to 0.6 of the training, or "fast", from 0.1 to 0.4.
        begin: share of the training before the first pressure, in place of the pace's.
        end: share of the training at which the budget is met, in place of the pace's.
        every: steps per segment, or epochs where `epochs` is given; None: a twentieth of the steps, or one epoch.
        settled: similarity of widths to wait for; see `prunus.budget.controller`.
        keep: layers that keep all channels that they produce, as patterns over their paths; besides the budget's.
        kwargs: the example's keyword arguments.
        meter: measures a network's milliseconds, for a budget that bounds them, or one per budget; None: on the
            budget's target, or in ONNX Runtime on one thread, where the example is tensors.
        reference: the network to whose latency a share refers, measured each time; None: this one, once.
        importance: a function from the network and its groups to a number per group, [num_groups]; None: Taylor's.
        told: receives a sentence about each measurement.

    Raises:
        BudgetError: the budget is met already or out of reach, or is in milliseconds without a meter.
        RecipeError: a setting is invalid.
        TrainingError: the network is wrapped or sharded, or the optimizer trains another one, or a part of it.
        TraceError: the network cannot be read.

    Attributes:
        settings: the budget and when to reach it; frozen.
        network: the model, its optimizer, its channel groups and the plan of all cuts so far.
        pressure: the importance of the groups, and the groups under pressure.
        clock: the position in the training.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Any,
        example: Inputs,
        *,
        budget: Budget | Sequence[Budget],
        steps: int | None = None,
        epochs: int | None = None,
        pace: Pace = "accurate",
        begin: float | None = None,
        end: float | None = None,
        every: int | None = None,
        settled: float | None = None,
        keep: str | Sequence[str] = (),
        kwargs: Mapping[str, Any] | None = None,
        meter: Meter | Sequence[Meter | None] | None = None,
        reference: nn.Module | None = None,
        importance: Importance | None = None,
        told: Callable[[str], None] = lambda text: None,
    ) -> None:
        optimizer = unwrapped(optimizer)
        checks.check_network(model, optimizer)
        settings = controller_of(budget, keep, pace, begin, end, every, settled, steps=steps, epochs=epochs)
        network, budgets = NetworkInTraining(model, optimizer, arguments(example), kwargs), settings.sequence
        checks.check_held(model, optimizer, network.groups)
        checks.check_budgets(budgets, network.groups, reference)
        self.network, self.settings, self.schedule = network, settings, schedule_of(settings, steps, epochs, every)
        self.clock = Clock(steps_per_period=steps // epochs if steps and epochs else None)
        goals = [goal_of(model, network.groups, network.example, each, network.kwargs) for each in budgets]
        meters: Sequence[Meter | None] = [None] * len(budgets)
        if network.processes.first:  # process 0 measures for all
            meters = meters_of(budgets, meter, model, None if kwargs else example)
        self.pressure = Pressure(network, budgets, goals, meters, reference, importance, told)
        self._watch = OptimizerWatch(optimizer, self._before_step, network.check_state)
        self._late: ShrinkRecord | None = None  # record of a cut that step() has not returned yet

    @property
    def groups(self) -> ChannelGroups:
        """The network's present channel groups."""
        return self.network.groups

    @property
    def plan(self) -> Plan:
        """All cuts so far, as edits of the wide network."""
        return self.network.plan

    @property
    def num_passed(self) -> int:
        """The number of budgets reached."""
        return self.schedule.passed(self.clock)

    def follow(self, copy: nn.Module) -> None:
        """Make a copy of the network, such as an average of its weights, narrower along with it, in place.

        Raises:
            TrainingError: `copy`, or the `module` of a wrapper, has other names or shapes of tensors.
        """
        self.network.copies.append(checks.average_of(copy, self.network.model))

    def use(self, optimizer: Any) -> None:
        """Continue with another optimizer, such as one made by a trainer; layers frozen since keep their channels.

        Raises:
            TrainingError: it trains another network.
        """
        optimizer = unwrapped(optimizer)
        checks.check_network(self.network.model, optimizer)
        self._watch.close()
        self.network.optimizer = optimizer
        self.network.groups = self.network.trained(self.network.groups)
        checks.check_held(self.network.model, optimizer, self.network.groups)
        self._watch = OptimizerWatch(optimizer, self._before_step, self.network.check_state)

    def step(self) -> ShrinkRecord | None:
        """Press the chosen channels; call it after `optimizer.step()`. At a segment's end, return the cut's record.

        Do nothing unless the optimizer has stepped since the last call (gradients may be accumulated, or a GradScaler
        may have skipped it).

        Raises:
            TrainingError: a cut changed the outputs by more than rounding; the network is then unchanged.
        """
        if not self._watch.take():
            return None
        left, (late, self._late) = self.schedule.steps_left(self.clock), (self._late, None)
        self.clock.step += 1
        if left:
            self.pressure.press_(left)
        return self.end_period() if self.schedule.has_ended(self.clock) else late

    def end_epoch(self) -> ShrinkRecord | None:
        """End an epoch, for a Shrinker that counts in `epochs`; return the record of a cut, if there was one."""
        if self.schedule.length is not None:
            raise TrainingError("end_epoch() is for Shrinker(..., epochs=N); with steps=N, step() counts by itself")
        return self.end_period()

    def end_period(self, *, zeros: bool = False) -> ShrinkRecord | None:
        """End a period. At the end of a segment, or with `zeros`, remove the zero groups and return the record."""
        ended = self.schedule.periods_left(self.clock) == 1 and bool(self.pressure.pressed.any())
        record, epoch = None, self.clock.period + 1
        if ended:
            self.pressure.press_(1)  # makes values that changed since exactly zero again
        if ended or zeros:
            when = f"after the cut at the end of {'epoch' if self.schedule.length is None else 'period'} {epoch}"
            record = self.pressure.followed(self.network.cut_zeros(self.pressure.budget.keep, when, epoch=epoch))
        if ended:
            self.pressure.pressed.zero_()
        self.clock.next_period()
        return record

    def finish(self) -> ShrinkRecord | None:
        """Reach the budget now, whatever the schedule: remove the least important channels in excess of it.

        These are not zero, so the outputs change: train on for a while. If the schedule has reached the budget,
        nothing is left to remove. Afterwards the optimizer is no longer watched.
        """
        self.pressure.aim_at_last()
        if self.settings.budget.is_timed:
            self.pressure.measure()
        cut = self.network.cut(self.pressure.selected(1.0), "after finish()", epoch=self.clock.period + 1, exact=False)
        record = self.pressure.followed(cut)
        self.pressure.pressed.zero_()
        self._watch.close()
        return record

    def begin_period(self, steps: int | None = None) -> None:
        """Choose the groups to press where a segment begins; a period's first step calls this.

        `steps` is the number of optimizer steps that the period will have, if known.
        """
        self.clock.steps_per_period = steps or self.clock.steps_per_period
        if not self.clock.chosen:
            self.pressure.begin(self.schedule, self.clock)
            self.clock.chosen = True

    @torch.no_grad()
    def _before_step(self, scale: float) -> None:
        """Inspect the gradients of a step that is about to be taken."""
        if self._watch.stepped:  # a checkpoint was written between the optimizer's step and this one's
            self._late = self.step()
        self.network.check_gradients()
        self.begin_period()
        if not self.schedule.is_over(self.clock):
            self.pressure.observe(scale)

    def state_dict(self) -> dict[str, Any]:
        """Return the changing state, as tensors and JSON; the weights are in the network's and the optimizer's own
        `state_dict()`."""
        return self.pressure.state(self.clock, self.schedule.periods, stepped=self._watch.stepped).to_dict()

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`: make the network and its optimizer as narrow as they were.

        Call it before the network's and the optimizer's own `load_state_dict`, which then fit, and `step()` after them
        if the checkpoint may have been written between the optimizer's step and the Shrinker's.

        Raises:
            CheckpointError: `saved` is not the state of a Shrinker, or of another network.
        """
        state = ShrinkerState.from_dict(saved, periods=self.schedule.periods)
        checks.check_optimizer_is_fresh(self.network.model, self.network.optimizer)
        self.restore(state)
        self._watch.stepped = state.progress.stepped

    def restore(self, state: ShrinkerState) -> None:
        """Continue from a state that has been read; raise `CheckpointError` where it is of another network."""
        self.pressure.restore_(state, self.schedule.passed(state.progress.clock))
        self.clock = state.progress.clock
