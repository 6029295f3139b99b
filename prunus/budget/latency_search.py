"""Budgets in milliseconds: how many multiply-adds a network may have to stay within one, found by measuring.

Latency is no sum over layers: it depends on kernels, caches and what a backend fuses. So networks are made and timed.
Among those that selection leaves at different multiply-adds the largest is sought that is quick enough: where a
straight line between two measurements has it, or half-way where the line has missed it twice on one side.
"""

import copy
import dataclasses
import math
from collections.abc import Callable, Mapping

from torch import Tensor, nn

from prunus.budget.greedy_selection import most, victims
from prunus.budget.removal import removal
from prunus.errors import BudgetError, PrunusError
from prunus.graph import ChannelGroups
from prunus.surgery import Plan, apply

Meter = Callable[[nn.Module], float]  # the latency of a network in milliseconds

STEPS = 6  # networks tried between the smallest and the largest
MARGIN = 0.02  # of the bound, by which two measurements differ
NEAR = 0.02  # of the bound: so little below it, no larger network is sought


@dataclasses.dataclass(frozen=True, kw_only=True)
class Aim:
    """The largest network found that is quick enough.

    Attributes:
        plan: leads to it from the traced network.
        macs: its multiply-adds.
        measured_ms: its latency.
        limit_ms: the bound.
    """

    plan: Plan
    macs: int
    measured_ms: float
    limit_ms: float


def aimed(
    model: nn.Module,
    groups: ChannelGroups,
    importance: Tensor,
    meter: Meter,
    limit_ms: float,
    *,
    bounds: Mapping[str, float],
    floor: Mapping[str, int],
    multiple_of: int = 1,
) -> Aim:
    """Return the largest network that selection leaves within a latency and other bounds.

    A measurement has to stay 2 % below the latency, since another one may say that much more.

    Args:
        model: the network, as traced.
        groups: `prunus.trace` of it.
        importance: [num_groups].
        meter: of latencies.
        limit_ms: the latency in milliseconds.
        bounds: on multiply-adds and parameters, by kind.
        floor: groups that each layer keeps.
        multiple_of: see `victims`.

    Raises:
        BudgetError: the smallest network is too slow (its latency is named), or above another bound.
    """
    whole = float(groups.macs())

    def within(macs: float) -> Tensor:
        return victims(groups, importance, {**bounds, "macs": min(macs, bounds.get("macs", whole))}, floor, multiple_of)

    largest = _measured(model, groups, within(whole), meter, limit_ms)
    if _is_quick(largest):  # another bound is the tighter one, or nothing need go
        return largest
    best = smallest(model, groups, importance, meter, limit_ms, floor=floor, multiple_of=multiple_of)
    low, high, slowest, sides = float(best.macs), float(largest.macs), largest.measured_ms, list[bool]()
    for _ in range(STEPS):
        share = ((1 - MARGIN) * limit_ms - best.measured_ms) / (slowest - best.measured_ms)
        if len(sides) > 1 and sides[-1] == sides[-2]:
            share, sides = 0.5, []
        middle = low + min(max(share, 0.05), 0.95) * (high - low)
        chosen = within(middle)
        found = best
        if groups.cost.total("macs", ~chosen) > best.macs:
            found = _measured(model, groups, chosen, meter, limit_ms)
        sides.append(_is_quick(found))
        if sides[-1]:
            best, low = found, middle
        else:
            high, slowest = middle, found.measured_ms
        if best.measured_ms >= (1 - MARGIN - NEAR) * limit_ms:
            break
    return best


def smallest(
    model: nn.Module,
    groups: ChannelGroups,
    importance: Tensor,
    meter: Meter,
    limit_ms: float,
    *,
    floor: Mapping[str, int],
    multiple_of: int = 1,
) -> Aim:
    """Return the smallest network that a budget can leave.

    Raises:
        BudgetError: it is too slow, measured twice.
    """
    chosen = most(groups, importance, floor, multiple_of)
    found = _measured(model, groups, chosen, meter, limit_ms)
    if not _is_quick(found):
        again = _measured(model, groups, chosen, meter, limit_ms)
        found = min(found, again, key=lambda aim: aim.measured_ms)
    if not _is_quick(found):
        raise BudgetError(
            f"the budget (latency <= {limit_ms:.3g} ms) cannot be met: the smallest reachable network takes "
            f"{found.measured_ms:.3g} ms, with {found.macs:,} of {groups.macs():,} MACs, and must stay {MARGIN:.0%} "
            "below the bound, since measurements differ; raise the budget, lower min_share or multiple_of, or see "
            "coverage() for what cannot be removed"
        )
    return found


def checked(meter: Meter | None) -> Meter:
    """Return `meter`, which times networks: copies, whatever it does to them.

    Raises:
        BudgetError: there is none; when it is asked, that it fails or gives no milliseconds.
    """
    if not callable(meter):
        raise BudgetError(
            f"a budget in milliseconds needs a meter, not {meter!r}: meter=lambda network: "
            "prunus.deploy.latency_ms(network, example), or a function of yours that takes a network and returns its "
            "milliseconds on your target"
        )

    def ask(model: nn.Module) -> float:
        try:
            told = meter(copy.deepcopy(model))
            milliseconds = math.nan if isinstance(told, bool | str) else float(told)
        except PrunusError:
            raise
        except Exception as error:  # whatever the user's own function raises
            text = f"the meter fails on a network: {type(error).__name__}: {error}"
            raise BudgetError(f"{text}; it takes a network and returns its milliseconds") from error
        if not 0 < milliseconds < math.inf:
            raise BudgetError(f"the meter gives {told!r}, and a latency is a number of milliseconds above zero")
        return milliseconds

    return ask


def _is_quick(aim: Aim) -> bool:
    return aim.measured_ms <= (1 - MARGIN) * aim.limit_ms


def _measured(model: nn.Module, groups: ChannelGroups, chosen: Tensor, meter: Meter, limit: float) -> Aim:
    plan = removal(groups, chosen)
    macs = groups.cost.total("macs", ~chosen)
    return Aim(plan=plan, macs=int(macs), measured_ms=meter(apply(plan, model)), limit_ms=limit)
