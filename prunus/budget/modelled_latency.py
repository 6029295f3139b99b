"""A budget in milliseconds with a meter that models the latency."""

import functools
from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from prunus.budget.budget import Budget
from prunus.budget.latency_model import LatencyModel
from prunus.budget.latency_search import checked_meter
from prunus.budget.milliseconds import Measure, Reached, solve_milliseconds
from prunus.graph import ChannelGroups
from prunus.surgery import Plan, apply
from prunus.surgery.removal import removal


@runtime_checkable
class ModellingMeter(Protocol):
    """A meter that also knows how a network's latency depends on its widths."""

    def __call__(self, model: nn.Module, /) -> float:
        """Return the milliseconds of a network."""

    def latency_model(self, model: nn.Module, groups: ChannelGroups, measure: Measure, /) -> LatencyModel:
        """Return the latency model of `model`; `measure` times it without groups."""

    def tell(self, reached: Reached, /) -> None:
        """Take note of what was reached, and of what was predicted."""


def reached(
    model: nn.Module,
    groups: ChannelGroups,
    budget: Budget,
    importance: Tensor,
    floor: Mapping[str, int],
    meter: ModellingMeter,
) -> Plan:
    """Return the plan of the network within the milliseconds of `budget` that loses the least importance.

    The meter is told how it was reached.

    Raises:
        BudgetError: the smallest network is too slow; names its latency and the layers that take it.
    """
    timed = checked_meter(meter)

    @functools.cache
    def of_plan(plan: Plan) -> float:
        return timed(apply(plan, model))

    def measure(gone: Tensor) -> float:
        return of_plan(removal(groups, gone))

    found = solve_milliseconds(
        groups,
        importance,
        meter.latency_model(model, groups, measure),
        measure,
        budget.limit_ms(lambda: measure(torch.zeros(len(groups), dtype=torch.bool))),
        floor,
        bounds=budget.absolute(groups),
        multiple_of=budget.multiple_of,
    )
    meter.tell(found)
    return removal(groups, found.best.solution.removed)
