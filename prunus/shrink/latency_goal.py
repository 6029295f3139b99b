"""The latency goal of a training: a budget in milliseconds, converted into a bound on multiply-adds by measuring.

That happens when the training begins, and again before the last segment, on the network as it is by then. Process 0
measures for all.
"""

import dataclasses
import math
from collections.abc import Callable

from torch import Tensor, nn

from prunus.budget import Budget
from prunus.budget.controller import Goal
from prunus.budget.latency_search import LatencySearch, MeasuredNetwork, Meter, checked_meter
from prunus.budget.select import relative_norms
from prunus.graph import ChannelGroups
from prunus.shrink.network import NetworkInTraining


def measured_goal(
    network: NetworkInTraining,
    importance: Tensor,
    goal: Goal,
    budget: Budget,
    meter: Meter | None,
    reference: nn.Module | None,
) -> tuple[Goal, str]:
    """Return the goal with the multiply-adds of the largest network found that meets the budget's latency, and a
    sentence for the reader.

    Args:
        network: as it is now.
        importance: of its groups, [num_groups].
        goal: the present one.
        budget: the bounds.
        meter: measures a network's latency; in process 0 alone.
        reference: the network whose latency such a budget takes a share of, measured anew; None: as measured first.

    Raises:
        BudgetError: in every process; no network is fast enough.
    """

    def measure() -> MeasuredNetwork:
        timed, limit = checked_meter(meter), goal.limit_ms
        if limit is None or reference is not None:  # a share refers to the present latency on this machine
            limit = budget.limit_ms(lambda: timed(network.model if reference is None else reference))
        search = LatencySearch(
            model=network.model,
            groups=network.groups,
            importance=importance,
            meter=timed,
            limit_ms=limit,
            floor=goal.floors,
            multiple_of=budget.multiple_of,
            bounds=budget.bounds(goal.start),
            solver=budget.solver,
        )
        return search.largest()

    found = network.processes.once(measure)
    limit = found.limit_ms if math.isfinite(found.limit_ms) else None  # a share of 1; JSON has no infinity
    text = (
        f"{found.macs:,} MACs are aimed at; a network of so many took {found.measured_ms:,.3f} ms, where "
        f"{found.limit_ms:,.3f} ms are allowed."
    )
    bounds = {**goal.bounds, "macs": float(found.macs)}
    return dataclasses.replace(goal, bounds=bounds, limit_ms=limit), text


def check_latency_reachable(
    model: nn.Module, groups: ChannelGroups, budget: Budget, goal: Goal, meter: Callable[[], Meter] | None
) -> None:
    """Refuse a budget that not even the smallest network meets, before anything is trained; `meter` returns a meter.

    Raises:
        BudgetError: names the latency of the smallest network.
    """
    timed = checked_meter(None if meter is None else meter())
    search = LatencySearch(
        model=model,
        groups=groups,
        importance=relative_norms(model, groups),
        meter=timed,
        limit_ms=budget.limit_ms(lambda: timed(model)),
        floor=goal.floors,
        multiple_of=budget.multiple_of,
    )
    search.smallest()
