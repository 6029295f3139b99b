"""A budget in milliseconds with a meter that models the latency."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from prunus.backends.target import Target
from prunus.budget.blocks import plan_without, possible_blocks
from prunus.budget.budget import Budget
from prunus.budget.greedy_selection import floors
from prunus.budget.latency_model import KnownLatency, LatencyModel
from prunus.budget.latency_search import checked_meter
from prunus.budget.milliseconds import Measure, Problem, Reached, solve_milliseconds
from prunus.errors import BudgetError
from prunus.graph import ChannelGroups
from prunus.surgery import Plan, apply
from prunus.surgery.bypass import skippable_blocks


@runtime_checkable
class ModellingMeter(Protocol):
    """A meter that also models how a network's latency depends on its widths.

    Attributes:
        inputs: the example inputs.
        target: where it times them.
    """

    inputs: tuple[Tensor, ...]
    target: Target

    def __call__(self, model: nn.Module, /) -> float:
        """Return the milliseconds of a network."""

    def latency_model(self, model: nn.Module, groups: ChannelGroups, measure: Measure, /) -> LatencyModel:
        """Return the latency model of `model`; `measure` times `model` without given groups."""

    def follow(self, known: KnownLatency, model: nn.Module, groups: ChannelGroups, /) -> LatencyModel:
        """Return the latency model of `model`, a narrower version of the one in `known`."""

    def tell(self, reached: Reached, /) -> None:
        """Record the networks reached, and their predictions."""


def refuse_other_target(budget: Budget, meter: ModellingMeter) -> None:
    """Raise unless `meter` measures on the target that the budget names, if it names one.

    Raises:
        BudgetError: names both targets.
    """
    if budget.target not in (None, meter.target):
        raise BudgetError(
            f"the budget is for {budget.target}, and the meter measures on {meter.target}: give "
            "meter=prunus.TargetMeter(budget.target, example), or a budget without a target"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelledNetwork:
    """A network with a budget in milliseconds, and its latency model.

    Attributes:
        model: the network, as traced.
        groups: `prunus.trace` of it.
        budget: bounds the latency.
        floor: groups that each layer keeps, by name.
        meter: measures and models the latency.
        known: the model of a wider version of the network; None: the meter makes it.
    """

    model: nn.Module
    groups: ChannelGroups
    budget: Budget
    floor: Mapping[str, int]
    meter: ModellingMeter
    known: KnownLatency | None = None

    @functools.cached_property
    def latency(self) -> LatencyModel:
        """The model of the latency."""
        if self.known is None:
            return self.meter.latency_model(self.model, self.groups, self._timed)
        return self.meter.follow(self.known, self.model, self.groups)

    @functools.cached_property
    def blocks(self) -> dict[str, frozenset[str]]:
        """Removable residual blocks: block -> its layers; none unless the budget's `min_share` is 0."""
        if self.budget.min_share > 0:
            return {}
        return possible_blocks(self.groups, self.floor, skippable_blocks(self.model, self.meter.inputs))

    def plan(self, gone: Tensor) -> Plan:
        """Return the plan that removes the groups `gone`."""
        return plan_without(self.model, self.groups, gone, self.meter.inputs if self.blocks else None)

    def measured(self, gone: Tensor) -> float:
        """Return the milliseconds without the groups `gone`: predicted for another machine's target, else measured."""
        return self.latency.predicted(~gone) if self.meter.target.remote else self._timed(gone)

    def whole_ms(self) -> float:
        """Return the milliseconds of the whole network."""
        return self.measured(torch.zeros(len(self.groups), dtype=torch.bool))

    def reached(self, importance: Tensor, limit_ms: float, bounds: Mapping[str, float]) -> Reached:
        """Return the network that loses the least importance within `limit_ms` and `bounds`, on "macs" and "params".

        The meter records the result.

        Raises:
            BudgetError: the smallest network is too slow; names its latency and the slowest layers.
        """
        found = solve_milliseconds(
            self.groups,
            importance,
            self.latency,
            self.measured,
            limit_ms,
            self.floor,
            bounds=bounds,
            multiple_of=self.budget.multiple_of,
            blocks=self.blocks,
        )
        found = dataclasses.replace(found, predicted_only=self.meter.target.remote)
        self.meter.tell(found)
        return found

    def chosen(self, importance: Tensor, limit_ms: float, bounds: Mapping[str, float]) -> Tensor:
        """Return the groups to remove for a modelled latency of at most `limit_ms`: bool [num_groups].

        Where even the smallest network is predicted to be too slow, return the groups that leave it.
        """
        problem = Problem(self.groups, importance, self.floor, bounds, self.budget.multiple_of, self.blocks)
        return (problem.best(self.latency, limit_ms) or problem.smallest()).removed

    def _timed(self, gone: Tensor) -> float:
        return self._of_plan(self.plan(gone))

    @functools.cached_property
    def _of_plan(self) -> Callable[[Plan], float]:
        timed = checked_meter(self.meter)
        return functools.cache(lambda plan: timed(apply(plan, self.model)))


def reached(
    model: nn.Module,
    groups: ChannelGroups,
    budget: Budget,
    importance: Tensor,
    floor: Mapping[str, int],
    meter: ModellingMeter,
) -> Plan:
    """Return the plan of the network within the milliseconds of `budget` that loses the least importance.

    With a `min_share` of 0, whole residual blocks may be removed. The meter records the result.

    Raises:
        BudgetError: the meter has another target; or the smallest network is too slow (names its latency and the
            slowest layers).
    """
    refuse_other_target(budget, meter)
    if budget.min_share == 0:
        floor = floors(groups, budget, frozenset().union(*skippable_blocks(model, meter.inputs).values()))
    network = ModelledNetwork(model=model, groups=groups, budget=budget, floor=floor, meter=meter)
    found = network.reached(importance, budget.limit_ms(network.whole_ms), budget.absolute(groups))
    chosen = network.plan(found.best.solution.removed)
    return dataclasses.replace(chosen, notes=(*chosen.notes, str(found)))
