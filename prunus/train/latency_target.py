"""A budget in milliseconds while a network trains: process 0 measures, all do what it found.

The latency is turned into a bound on multiply-adds, by which the network shrinks: when the training begins, and again
before the last segment, on the network that there is by then.
"""

import dataclasses
import math
from collections.abc import Callable

from torch import Tensor, nn

from prunus.budget import Budget
from prunus.budget.controller import Target
from prunus.budget.latency_search import Aim, Meter, aimed, checked, smallest
from prunus.budget.select import relative_norms
from prunus.graph import ChannelGroups
from prunus.records import NoteRecord
from prunus.train.job import Training
from prunus.train.training_state import State


def importance(state: State) -> Tensor:
    """Return what training has shown of the groups' importance; their norms, where it has not begun: [num_groups]."""
    found = state.importance.double()
    return found if bool(found.any()) else relative_norms(state.model, state.groups)


def take_aim(state: State, budget: Budget, training: Training) -> None:
    """Bound the multiply-adds of the network as it is now by what meets the budget's latency.

    Raises:
        BudgetError: in every process: nothing is quick enough.
    """
    target = state.target
    assert target is not None

    def measure() -> Aim:
        meter = checked(training.meter)
        wide, limit = training.reference, target.limit_ms
        if limit is None or wide is not None:  # a share is one of what the network takes on this machine now
            limit = budget.limit_ms(lambda: meter(wide or state.model))
        return aimed(
            state.model,
            state.groups,
            importance(state),
            meter,
            limit,
            bounds=budget.bounds(target.start),
            floor=target.floors,
            multiple_of=budget.multiple_of,
        )

    found = training.processes.once(measure)
    limit = found.limit_ms if math.isfinite(found.limit_ms) else None  # a share of 1 bounds nothing
    state.target = dataclasses.replace(target, bounds={**target.bounds, "macs": float(found.macs)}, limit_ms=limit)
    text = (
        f"{training.name}, after epoch {state.progress.epoch}: {found.macs:,} MACs are aimed at; a network of so many "
        f"took {found.measured_ms:,.3f} ms, where {found.limit_ms:,.3f} ms are allowed."
    )
    training.recorder.write(NoteRecord(text=text))


def refuse_too_slow(
    model: nn.Module, groups: ChannelGroups, budget: Budget, target: Target, meter: Callable[[], Meter] | None
) -> None:
    """Refuse a budget that not even the smallest network meets, before anything is trained; `meter` makes the meter.

    Raises:
        BudgetError: its latency is named.
    """
    timed = checked(None if meter is None else meter())
    limit = budget.limit_ms(lambda: timed(model))
    norms = relative_norms(model, groups)
    smallest(model, groups, norms, timed, limit, floor=target.floors, multiple_of=budget.multiple_of)
