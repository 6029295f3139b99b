"""The latency target of a training: a budget in milliseconds, converted into a bound on multiply-adds by measuring.

That happens when the training begins, and again before the last segment, on the network as it is by then. Process 0
measures for all.
"""

import dataclasses
import math
from collections.abc import Callable

from torch import Tensor, nn

from prunus.budget import Budget
from prunus.budget.controller import Target
from prunus.budget.latency_search import LatencySearch, MeasuredNetwork, Meter, checked_meter
from prunus.budget.select import relative_norms
from prunus.graph import ChannelGroups
from prunus.records import NoteRecord
from prunus.train.job import TrainingJob
from prunus.train.training_state import TrainingState


def group_importance(state: TrainingState) -> Tensor:
    """Return the groups' importance in this training, or their relative norms before its first step: [num_groups]."""
    found = state.importance.double()
    return found if bool(found.any()) else relative_norms(state.model, state.groups)


def set_latency_target(state: TrainingState, budget: Budget, training: TrainingJob) -> None:
    """Bound the multiply-adds by those of the largest network found that meets the budget's latency.

    Raises:
        BudgetError: in every process; no network is fast enough.
    """
    target = state.target
    assert target is not None

    def measure() -> MeasuredNetwork:
        meter = checked_meter(training.meter)
        wide, limit = training.reference, target.limit_ms
        if limit is None or wide is not None:  # a share refers to the present latency on this machine
            limit = budget.limit_ms(lambda: meter(wide or state.model))
        search = LatencySearch(
            model=state.model,
            groups=state.groups,
            importance=group_importance(state),
            meter=meter,
            limit_ms=limit,
            floor=target.floors,
            multiple_of=budget.multiple_of,
            bounds=budget.bounds(target.start),
        )
        return search.largest()

    found = training.processes.once(measure)
    limit = found.limit_ms if math.isfinite(found.limit_ms) else None  # a share of 1; JSON has no infinity
    state.target = dataclasses.replace(target, bounds={**target.bounds, "macs": float(found.macs)}, limit_ms=limit)
    text = (
        f"{training.name}, after epoch {state.progress.epoch}: {found.macs:,} MACs are aimed at; a network of so many "
        f"took {found.measured_ms:,.3f} ms, where {found.limit_ms:,.3f} ms are allowed."
    )
    training.recorder.write(NoteRecord(text=text))


def check_latency_reachable(
    model: nn.Module, groups: ChannelGroups, budget: Budget, target: Target, meter: Callable[[], Meter] | None
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
        floor=target.floors,
        multiple_of=budget.multiple_of,
    )
    search.smallest()
