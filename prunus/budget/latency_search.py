"""Latency search: the largest network that greedy selection leaves within a number of milliseconds, by measuring.

Latency is not a sum over layers: it depends on kernels, caches and on what a backend fuses. So networks of different
multiply-adds are built and timed. The next one to try is found by linear interpolation between the two measurements
around the bound (regula falsi), or by bisection after two misses on the same side.
"""

import copy
import dataclasses
import math
from collections.abc import Callable, Mapping

from torch import Tensor, nn

from prunus.budget.greedy_selection import all_removable, greedy_selection
from prunus.budget.removal import removal
from prunus.errors import BudgetError, PrunusError
from prunus.graph import ChannelGroups
from prunus.surgery import Plan, apply

Meter = Callable[[nn.Module], float]  # the latency of a network in milliseconds

STEPS = 6  # networks tried between the smallest and the largest
MARGIN = 0.02  # share of the bound by which two measurements may differ
NEAR = 0.02  # share of the bound: a network this close below it is large enough


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeasuredNetwork:
    """A network that was measured.

    Attributes:
        plan: leads to it from the traced network.
        macs: its multiply-adds.
        measured_ms: its latency.
        limit_ms: the bound on the latency.
    """

    plan: Plan
    macs: int
    measured_ms: float
    limit_ms: float


def largest_within(
    model: nn.Module,
    groups: ChannelGroups,
    importance: Tensor,
    meter: Meter,
    limit_ms: float,
    *,
    bounds: Mapping[str, float],
    floor: Mapping[str, int],
    multiple_of: int = 1,
) -> MeasuredNetwork:
    """Return the largest network that selection leaves within a latency and other bounds.

    Its measured latency stays 2 % below the bound, since another measurement may be that much higher.

    Args:
        model: the network, as traced.
        groups: `prunus.trace` of it.
        importance: [num_groups].
        meter: measures a network's latency.
        limit_ms: the bound on it, in milliseconds.
        bounds: on multiply-adds and parameters, by kind.
        floor: groups that each layer keeps.
        multiple_of: see `greedy_selection`.

    Raises:
        BudgetError: the smallest network is too slow (names its latency), or above another bound.
    """
    whole = float(groups.macs())

    def within(macs: float) -> Tensor:
        return greedy_selection(
            groups, importance, {**bounds, "macs": min(macs, bounds.get("macs", whole))}, floor, multiple_of
        )

    largest = _measure(model, groups, within(whole), meter, limit_ms)
    if _is_fast_enough(largest):  # another bound is the tighter one, or nothing has to be removed
        return largest
    best = smallest_within(model, groups, importance, meter, limit_ms, floor=floor, multiple_of=multiple_of)
    low, high, slowest, sides = float(best.macs), float(largest.macs), largest.measured_ms, list[bool]()
    for _ in range(STEPS):
        share = ((1 - MARGIN) * limit_ms - best.measured_ms) / (slowest - best.measured_ms)
        if len(sides) > 1 and sides[-1] == sides[-2]:
            share, sides = 0.5, []
        middle = low + min(max(share, 0.05), 0.95) * (high - low)
        chosen = within(middle)
        found = best
        if groups.cost.total("macs", ~chosen) > best.macs:
            found = _measure(model, groups, chosen, meter, limit_ms)
        sides.append(_is_fast_enough(found))
        if sides[-1]:
            best, low = found, middle
        else:
            high, slowest = middle, found.measured_ms
        if best.measured_ms >= (1 - MARGIN - NEAR) * limit_ms:
            break
    return best


def smallest_within(
    model: nn.Module,
    groups: ChannelGroups,
    importance: Tensor,
    meter: Meter,
    limit_ms: float,
    *,
    floor: Mapping[str, int],
    multiple_of: int = 1,
) -> MeasuredNetwork:
    """Return the smallest network that a budget can leave, measured.

    Raises:
        BudgetError: it is too slow, also when measured again.
    """
    chosen = all_removable(groups, importance, floor, multiple_of)
    found = _measure(model, groups, chosen, meter, limit_ms)
    if not _is_fast_enough(found):
        again = _measure(model, groups, chosen, meter, limit_ms)
        found = min(found, again, key=lambda network: network.measured_ms)
    if not _is_fast_enough(found):
        raise BudgetError(
            f"the budget (latency <= {limit_ms:.3g} ms) cannot be met: the smallest reachable network takes "
            f"{found.measured_ms:.3g} ms, with {found.macs:,} of {groups.macs():,} MACs, and must stay {MARGIN:.0%} "
            "below the bound, since measurements differ; raise the budget, lower min_share or multiple_of, or see "
            "coverage() for what cannot be removed"
        )
    return found


def checked_meter(meter: Meter | None) -> Meter:
    """Return `meter` with checks: it gets a copy of each network, and must return milliseconds.

    Raises:
        BudgetError: there is no meter; when called, that it fails or returns something else.
    """
    if not callable(meter):
        raise BudgetError(
            f"a budget in milliseconds needs a meter, not {meter!r}: meter=lambda network: "
            "prunus.deploy.latency_ms(network, example), or your own function that takes a network and returns its "
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


def _is_fast_enough(network: MeasuredNetwork) -> bool:
    return network.measured_ms <= (1 - MARGIN) * network.limit_ms


def _measure(model: nn.Module, groups: ChannelGroups, chosen: Tensor, meter: Meter, limit: float) -> MeasuredNetwork:
    plan = removal(groups, chosen)
    macs = groups.cost.total("macs", ~chosen)
    return MeasuredNetwork(plan=plan, macs=int(macs), measured_ms=meter(apply(plan, model)), limit_ms=limit)
