"""The pressure on channel groups: their importance, the choice of the groups to press to zero, and the pressing."""

import dataclasses
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from prunus.budget import Budget, width_stability
from prunus.budget.controller import Goal, press, thresholds
from prunus.budget.latency_search import Meter
from prunus.budget.milliseconds import AIM
from prunus.budget.schedule import Clock, Schedule
from prunus.budget.select import checked_importance, relative_norms
from prunus.errors import CheckpointError, EditError, TraceError
from prunus.graph import ChannelGroups
from prunus.penalties import BoundGroupLasso, GroupLasso, taylor
from prunus.records import ShrinkRecord
from prunus.shrink import checks
from prunus.shrink.latency_goal import measured_goal, modelled
from prunus.shrink.network import CutResult, NetworkInTraining
from prunus.shrink.state import FORMAT, Progress, ShrinkerState

Importance = Callable[[nn.Module, ChannelGroups], Tensor]  # importance per group, [num_groups]
MEMORY = 0.98  # decay per step of the running mean of the importance: about the last fifty steps count


class Pressure:
    """The pressure on the groups of one network.

    Attributes:
        network: the network.
        budgets: the budgets that the network reaches in turn; the last one bounds the final network.
        goals: their goals, fixed on the wide network.
        meters: their meters; each measures latency on its budget's target.
        budget: the present budget.
        goal: its goal.
        importance: running mean of the groups' Taylor importance, [num_groups].
        pressed: groups under pressure in the running segment, bool [num_groups].
        observed: whether `importance` holds at least one step.
        measured: whether a goal in milliseconds has been measured.
        reference: the network to whose latency a share refers; None: the network as first measured.
        told: receives a sentence about each measurement.
    """

    def __init__(
        self,
        network: NetworkInTraining,
        budgets: Sequence[Budget],
        goals: Sequence[Goal],
        meters: Sequence[Meter | None],
        reference: nn.Module | None,
        importance: Importance | None,
        told: Callable[[str], None],
    ) -> None:
        self.network, self.budgets, self.goals = network, tuple(budgets), tuple(goals)
        self.budget, self.goal = self.budgets[0], self.goals[0]
        self.meters, self.reference, self.told = tuple(meters), reference, told
        self._own = importance
        self.importance = torch.zeros(len(network.groups))
        self.pressed = torch.zeros(len(network.groups), dtype=torch.bool)
        self.observed = self.measured = False
        self._solved: Tensor | None = None  # groups whose removal, as measured, meets the latency; None after a cut
        self._lasso: BoundGroupLasso | None = None

    @property
    def lasso(self) -> BoundGroupLasso:
        """The group lasso on the network as it is now."""
        if self._lasso is None:
            self._lasso = GroupLasso().bind(self.network.model, self.network.groups)
        return self._lasso

    def observe(self, scale: float = 1.0) -> None:
        """Update the running mean of the Taylor importance with the present gradients, `scale` times the loss's."""
        if self._own is not None:
            return
        seen = taylor(self.lasso.slices)
        if scale != 1:
            seen = seen / scale**2
        old = self.importance.to(seen.device)
        self.importance = torch.lerp(seen, old, MEMORY) if self.observed else seen
        self.observed = True

    def ranking(self) -> Tensor:
        """Return the importance in this training, or the relative norms before the first step: [num_groups].

        Raises:
            BudgetError: the user's own importance is not one finite number per group.
        """
        if self._own is not None:
            return checked_importance(self._own(self.network.model, self.network.groups), len(self.network.groups))
        if not self.observed:
            return relative_norms(self.network.model, self.network.groups)
        return self.importance.double().cpu()

    def selected(self, progress: float) -> Tensor:
        """Return the groups that selection removes to reach the cost at `progress`, bool [num_groups]."""
        if self.goal.latency is None:
            return press(self.network.groups, self.ranking(), self.goal, progress, self.budget.multiple_of)
        if progress == 1 and self._solved is not None:
            return self._solved
        return self.network.processes.once(lambda: self._within(progress))

    def _within(self, progress: float) -> Tensor:
        """Return the groups whose removal reaches the modelled latency at `progress`."""
        network = modelled(self.network, self.goal, self.budget, self.meter)
        bounds = self.goal.at(progress)
        given = {kind: bound for kind, bound in bounds.items() if getattr(self.budget, kind) is not None}
        return network.chosen(self.ranking(), AIM * self.goal.milliseconds_at(progress), given)

    def begin(self, schedule: Schedule, clock: Clock) -> None:
        """Choose the groups to press where a segment begins with the running period; process 0 decides.

        A budget in milliseconds is measured when the shrinking to it begins, and before its last segment.
        """
        if schedule.is_over(clock):
            return
        checks.check_unchanged(self.network.model, self.network.optimizer, self.lasso.slices.parameters)
        self._aim_at(schedule.passed(clock), just_passed=schedule.has_just_passed(clock))
        just_measured = self.budget.is_timed and not self.measured
        if just_measured:
            self.measure()
        self._begin_when_stable(schedule, clock)
        progress = schedule.beginning(clock)
        if progress is None:
            return
        if progress == 1 and self.budget.is_timed and clock.period and not just_measured:
            self.measure()
        self.pressed = self.network.processes.share(self.selected(progress))

    def aim_at_last(self) -> None:
        """From now on, shrink to the last budget."""
        if self.budget is not self.budgets[-1]:
            self.budget, self.goal = self.budgets[-1], self._known_goal(len(self.budgets) - 1)

    @property
    def meter(self) -> Meter | None:
        """The meter of the present budget, if it bounds the latency; only in process 0."""
        return self.meters[self.budgets.index(self.budget)]

    def _known_goal(self, number: int) -> Goal:
        """Return the goal of budget `number`, with the present latency model if the target is the same."""
        same = self.budgets[number].target == self.budget.target
        return dataclasses.replace(self.goals[number], latency=self.goal.latency if same else None)

    def _aim_at(self, number: int, *, just_passed: bool) -> None:
        """From now on, shrink to budget `number`."""
        goal = self._known_goal(number) if just_passed else self.goal
        self.budget = self.budgets[number]
        if just_passed:
            groups = self.network.groups
            cost = {kind: float(groups.cost.total(kind, groups.all_alive())) for kind in goal.bounds}
            self.goal, self.measured = dataclasses.replace(goal, passed=cost), False

    def _begin_when_stable(self, schedule: Schedule, clock: Clock) -> None:
        """Record the widths that selection would leave now; start the pressure once stable or at the latest."""
        settled = schedule.controller.settled
        if settled is None or clock.settled_at is not None or schedule.periods is None:
            return
        earliest, latest = schedule.controller.window(schedule.periods)
        stable = False
        if self.observed:
            widths = self.network.groups.widths(~self.selected(1.0))
            clock.widths = [*clock.widths[-width_stability.MEMORY :], list(widths.values())]
            stable = clock.period >= earliest and width_stability.is_stable(clock.widths, settled)
        if self.network.processes.share(stable) or clock.period >= latest:
            clock.settled_at = clock.period

    def press_(self, steps_left: int) -> None:
        """Shrink the groups under pressure by one step; the last step of a segment makes them exactly zero."""
        if bool(self.pressed.any()):
            norms = self.lasso.slices.norms()
            self.lasso.shrink_(thresholds(norms, self.pressed, steps_left), norms)

    def measure(self) -> None:
        """Convert a budget in milliseconds into a bound on multiply-adds, or solve for it under a latency model; report
        the result to `told`.

        Raises:
            BudgetError: no network is fast enough, or the meter fails.
        """
        self.goal, said, self._solved = measured_goal(
            self.network, self.ranking(), self.goal, self.budget, self.meter, self.reference
        )
        self.measured = True
        self.told(said)

    def followed(self, result: CutResult | None) -> ShrinkRecord | None:
        """Update the state after a cut and return the cut's record; None where nothing was cut."""
        if result is None:
            return None
        self._solved = None
        self.importance, self.pressed = result.regrouped(self.importance), result.regrouped(self.pressed)
        self._lasso = GroupLasso().bind(self.network.model, self.network.groups)
        return result.record

    def state(self, clock: Clock, periods: int | None, *, stepped: bool) -> ShrinkerState:
        """Return the state at `clock` in a training of `periods`; `stepped`: the Shrinker's `step()` is still due."""
        progress = Progress(
            format=FORMAT,
            periods=periods,
            clock=clock,
            target=self.goal,
            observed=self.observed,
            measured=self.measured,
            stepped=stepped,
        )
        return ShrinkerState(
            importance=self.importance, pressed=self.pressed, plan=self.network.plan, progress=progress
        )

    def restore_(self, state: ShrinkerState, number: int) -> None:
        """Make the network as narrow as in `state`, and continue from there to budget `number`.

        Raises:
            CheckpointError: the state is of another network.
        """
        try:
            self.network.replay(state.plan, state.check_groups)
        except (EditError, TraceError) as error:
            raise CheckpointError(f"the state is of another network: {error}") from error
        self.importance, self.pressed = state.importance.detach().clone(), state.pressed.bool().clone()
        progress, self.budget = state.progress, self.budgets[min(number, len(self.budgets) - 1)]
        self.goal, self.observed, self.measured = progress.target, progress.observed, progress.measured
        self._lasso = self._solved = None  # of the wider network; the next step finds them again
