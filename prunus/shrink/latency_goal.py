"""The latency goal of a training: a budget in milliseconds, converted by measuring into a bound on multiply-adds; or,
with the exact solver and a meter that models the latency, a bound on the modelled milliseconds.

The latency is measured when the training begins, and again before the last segment, on the network at that time.
Process 0 measures for all.
"""

import dataclasses
import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from prunus.budget import Budget
from prunus.budget.controller import Goal
from prunus.budget.latency_model import KnownLatency
from prunus.budget.latency_search import LatencySearch, MeasuredNetwork, Meter, checked_meter
from prunus.budget.modelled_latency import ModelledNetwork, ModellingMeter
from prunus.budget.select import relative_norms
from prunus.graph import ChannelGroups, trace
from prunus.shrink.network import NetworkInTraining


def measured_goal(
    network: NetworkInTraining,
    importance: Tensor,
    goal: Goal,
    budget: Budget,
    meter: Meter | None,
    reference: nn.Module | None,
) -> tuple[Goal, str, Tensor | None]:
    """Return the measured goal; a sentence about it; and, for a modelled latency, the groups to remove for it.

    The goal holds the multiply-adds of the largest network that meets the latency, or the corrected model.

    Args:
        network: as it is now.
        importance: of its groups, [num_groups].
        goal: the present one.
        budget: the bounds.
        meter: measures a network's latency; only in process 0.
        reference: the network to whose latency a share refers, measured again; None: the latency as first measured.

    Raises:
        BudgetError: no network is fast enough; raised in every process.
    """

    if network.processes.once(lambda: is_modelled(budget, meter)):
        return network.processes.once(
            lambda: _modelled_goal(modelled(network, goal, budget, meter), importance, goal, reference)
        )
    found = network.processes.once(lambda: _largest(network, importance, goal, budget, meter, reference))
    limit = found.limit_ms if math.isfinite(found.limit_ms) else None  # a share of 1; JSON has no infinity
    text = (
        f"{found.macs:,} MACs are the target; a network of that size took {found.measured_ms:,.3f} ms, where "
        f"{found.limit_ms:,.3f} ms are allowed."
    )
    bounds = {**goal.bounds, "macs": float(found.macs)}
    return dataclasses.replace(goal, bounds=bounds, limit_ms=limit), text, None


def _largest(
    network: NetworkInTraining,
    importance: Tensor,
    goal: Goal,
    budget: Budget,
    meter: Meter | None,
    reference: nn.Module | None,
) -> MeasuredNetwork:
    """Return the largest network that meets the budget's latency, found by measuring alone."""
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


def is_modelled(budget: Budget, meter: Meter | None) -> bool:
    """Whether the milliseconds are solved under a model; a share of 1 bounds nothing and needs none."""
    return budget.solver == "exact" and budget.latency != 1 and isinstance(meter, ModellingMeter)


def modelled(network: NetworkInTraining, goal: Goal, budget: Budget, meter: Meter | None) -> ModelledNetwork:
    """Return the network as it is now, with the latency model of `goal`."""
    assert isinstance(meter, ModellingMeter)
    return ModelledNetwork(
        model=network.model, groups=network.groups, budget=budget, floor=goal.floors, meter=meter, known=goal.latency
    )


def _modelled_goal(
    network: ModelledNetwork, importance: Tensor, goal: Goal, reference: nn.Module | None
) -> tuple[Goal, str, Tensor | None]:
    limit = goal.limit_ms
    if limit is None or (reference is not None and not network.meter.target.remote):
        limit = network.budget.limit_ms(functools.partial(_whole_ms, network, reference))
    found = network.reached(importance, limit, network.budget.bounds(goal.start))
    everything = torch.ones(len(network.groups), dtype=torch.bool)
    start = found.model.predicted(everything) if goal.start_ms is None else goal.start_ms
    goal = dataclasses.replace(goal, limit_ms=limit, latency=KnownLatency.of(found.model), start_ms=start)
    return goal, f"{found}.", found.best.solution.removed


def _whole_ms(network: ModelledNetwork, reference: nn.Module | None) -> float:
    """Return the milliseconds that a share refers to: the reference's, predicted for a remote target."""
    meter = network.meter
    if reference is None:
        return network.whole_ms()
    if not meter.target.remote:
        return checked_meter(meter)(reference)
    groups = trace(reference, meter.inputs)
    return dataclasses.replace(network, model=reference, groups=groups, known=None).whole_ms()


def check_latency_reachable(
    model: nn.Module, groups: ChannelGroups, budget: Budget, goal: Goal, meter: Callable[[], Meter] | None
) -> None:
    """Refuse, before any training, a budget that even the smallest network misses; `meter` returns a meter.

    Raises:
        BudgetError: names the latency of the smallest network.
    """
    found = None if meter is None else meter()
    if isinstance(found, ModellingMeter) and found.target.remote and is_modelled(budget, found):
        own = ModelledNetwork(model=model, groups=groups, budget=budget, floor=goal.floors, meter=found)
        own.reached(relative_norms(model, groups), budget.limit_ms(own.whole_ms), budget.absolute(groups))
        return
    timed = checked_meter(found)
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
