"""A budget in milliseconds with a meter that models the latency."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from prunus.budget.blocks import plan_without, possible_blocks
from prunus.budget.budget import Budget
from prunus.budget.greedy_selection import floors
from prunus.budget.latency_model import LatencyModel
from prunus.budget.latency_search import checked_meter
from prunus.budget.milliseconds import Measure, Reached, solve_milliseconds
from prunus.budget.target import Target
from prunus.errors import BudgetError
from prunus.graph import ChannelGroups
from prunus.surgery import Plan, apply
from prunus.surgery.bypass import skippable_blocks


@runtime_checkable
class ModellingMeter(Protocol):
    """A meter that also knows how a network's latency depends on its widths.

    Attributes:
        inputs: the example that it times.
        target: where it times.
    """

    inputs: tuple[Tensor, ...]
    target: Target

    def __call__(self, model: nn.Module, /) -> float:
        """Return the milliseconds of a network."""

    def latency_model(self, model: nn.Module, groups: ChannelGroups, measure: Measure, /) -> LatencyModel:
        """Return the latency model of `model`; `measure` times it without groups."""

    def tell(self, reached: Reached, /) -> None:
        """Take note of what was reached, and of what was predicted."""


def refuse_other_target(budget: Budget, meter: ModellingMeter) -> None:
    """Refuse a meter that measures elsewhere than on the target that the budget names.

    Raises:
        BudgetError: names both.
    """
    if budget.target not in (None, meter.target):
        raise BudgetError(
            f"the budget is for {budget.target}, and the meter measures on {meter.target}: give "
            "meter=prunus.TargetMeter(budget.target, example), or a budget without a target"
        )


def reached(
    model: nn.Module,
    groups: ChannelGroups,
    budget: Budget,
    importance: Tensor,
    floor: Mapping[str, int],
    meter: ModellingMeter,
) -> Plan:
    """Return the plan of the network within the milliseconds of `budget` that loses the least importance.

    With a `min_share` of 0, residual blocks may go as a whole. The meter is told how the network was reached.

    Raises:
        BudgetError: the smallest network is too slow; names its latency and the layers that take it.
    """
    timed, blocks = checked_meter(meter), dict[str, frozenset[str]]()
    if budget.min_share == 0:
        found_blocks = skippable_blocks(model, meter.inputs)
        floor = floors(groups, budget, frozenset().union(*found_blocks.values()))
        blocks = possible_blocks(groups, floor, found_blocks)

    def plan(gone: Tensor) -> Plan:
        return plan_without(model, groups, gone, meter.inputs if blocks else None)

    @functools.cache
    def of_plan(plan: Plan) -> float:
        return timed(apply(plan, model))

    def measure(gone: Tensor) -> float:
        return of_plan(plan(gone))

    found = solve_milliseconds(
        groups,
        importance,
        meter.latency_model(model, groups, measure),
        measure,
        budget.limit_ms(lambda: measure(torch.zeros(len(groups), dtype=torch.bool))),
        floor,
        bounds=budget.absolute(groups),
        multiple_of=budget.multiple_of,
        blocks=blocks,
    )
    meter.tell(found)
    chosen = plan(found.best.solution.removed)
    return dataclasses.replace(chosen, notes=(*chosen.notes, str(found)))
