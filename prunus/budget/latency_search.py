"""Latency search: measure to find the largest network that selection leaves within a number of milliseconds.

Latency is not a sum over layers: it depends on kernels, caches and fusion in the backend. So networks of different
multiply-adds are built and timed. Linear interpolation between the two measurements around the bound determines the
next one to try (regula falsi), or bisection after two results on the same side.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping

from torch import Tensor, nn

from prunus.backends.target import Target
from prunus.budget.greedy_selection import all_removable
from prunus.budget.selection import selection
from prunus.errors import BudgetError, PrunusError
from prunus.graph import ChannelGroups
from prunus.modules.copying import copied
from prunus.surgery import Plan, apply
from prunus.surgery.removal import removal

Meter = Callable[[nn.Module], float]  # the latency of a network in milliseconds

STEPS = 6  # networks to try between the smallest and the largest
MARGIN = 0.02  # share of the bound by which two measurements may differ
NEAR = 0.02  # share of the bound: a network this close below it is large enough


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeasuredNetwork:
    """A network and its measured latency.

    Attributes:
        plan: the plan that makes it from the traced network.
        macs: its multiply-adds.
        measured_ms: its latency.
        limit_ms: the bound on the latency.
    """

    plan: Plan
    macs: int
    measured_ms: float
    limit_ms: float

    @property
    def is_fast_enough(self) -> bool:
        """Whether the latency is below the bound by the margin, since another measurement may be that much higher."""
        return self.measured_ms <= (1 - MARGIN) * self.limit_ms


@dataclasses.dataclass(frozen=True, kw_only=True)
class LatencySearch:
    """The networks that selection makes of one, and their latencies.

    Attributes:
        model: the network, as traced.
        groups: `prunus.trace` of it.
        importance: [num_groups].
        meter: measures a network's latency.
        limit_ms: the bound on it, in milliseconds.
        floor: groups that each layer keeps, by name.
        multiple_of: see `greedy_selection`.
        bounds: on multiply-adds and parameters, by kind.
        solver: see `Budget.solver`.
    """

    model: nn.Module
    groups: ChannelGroups
    importance: Tensor
    meter: Meter
    limit_ms: float
    floor: Mapping[str, int]
    multiple_of: int = 1
    bounds: Mapping[str, float] = dataclasses.field(default_factory=dict)
    solver: str = "greedy"

    def largest(self) -> MeasuredNetwork:
        """Return the largest network found within the latency and the other bounds.

        Raises:
            BudgetError: the smallest network is too slow (names its latency), or exceeds another bound.
        """
        whole = float(self.groups.macs())
        largest = self._measure(self._selected(whole))
        if largest.is_fast_enough:  # another bound is tighter, or nothing has to be removed
            return largest
        best = self.smallest()
        low, high, slowest, sides = float(best.macs), float(largest.macs), largest.measured_ms, list[bool]()
        for _ in range(STEPS):
            share = ((1 - MARGIN) * self.limit_ms - best.measured_ms) / (slowest - best.measured_ms)
            if len(sides) > 1 and sides[-1] == sides[-2]:
                share, sides = 0.5, []
            middle = low + min(max(share, 0.05), 0.95) * (high - low)
            chosen, found = self._selected(middle), best
            if self.groups.cost.total("macs", ~chosen) > best.macs:
                found = self._measure(chosen)
            sides.append(found.is_fast_enough)
            if sides[-1]:
                best, low = found, middle
            else:
                high, slowest = middle, found.measured_ms
            if best.measured_ms >= (1 - MARGIN - NEAR) * self.limit_ms:
                break
        return best

    def smallest(self) -> MeasuredNetwork:
        """Return the smallest network that any budget can leave.

        Raises:
            BudgetError: it is too slow, even when measured again.
        """
        chosen = all_removable(self.groups, self.importance, self.floor, self.multiple_of)
        found = self._measure(chosen)
        if not found.is_fast_enough:
            found = min(found, self._measure(chosen), key=lambda network: network.measured_ms)
        if not found.is_fast_enough:
            raise BudgetError(
                f"the budget (latency <= {self.limit_ms:.3g} ms) cannot be met: the smallest reachable network takes "
                f"{found.measured_ms:.3g} ms, with {found.macs:,} of {self.groups.macs():,} MACs, and must stay "
                f"{MARGIN:.0%} below the bound, since measurements differ; raise the budget, lower min_share or "
                "multiple_of, or see coverage() for what cannot be removed"
            )
        return found

    def _selected(self, macs: float) -> Tensor:
        bounds = {**self.bounds, "macs": min(macs, self.bounds.get("macs", macs))}
        return selection(self.solver)(self.groups, self.importance, bounds, self.floor, self.multiple_of)

    def _measure(self, chosen: Tensor) -> MeasuredNetwork:
        plan, macs = removal(self.groups, chosen), self.groups.cost.total("macs", ~chosen)
        taken = self.meter(apply(plan, self.model))
        return MeasuredNetwork(plan=plan, macs=int(macs), measured_ms=taken, limit_ms=self.limit_ms)


def checked_meter(meter: Meter | None, target: Target | None = None) -> Meter:
    """Wrap `meter` in checks: it gets a copy of each network, and must return milliseconds.

    Raises:
        BudgetError: there is no meter; or, from the wrapped meter, it fails or returns something else.
    """
    if not callable(meter):
        named = "prunus.deploy.LatencyMeter(model, example)"
        named = named if target is None else "prunus.TargetMeter(budget.target, example)"
        raise BudgetError(
            f"a budget in milliseconds needs a meter, not {meter!r}: meter={named}, "
            "or your own function that takes a network and returns its milliseconds on your target"
        )

    def ask(model: nn.Module) -> float:
        try:
            measured = meter(copied(model, isolated=True))
            milliseconds = math.nan if isinstance(measured, bool | str) else float(measured)
        except PrunusError:
            raise
        except Exception as error:  # any error of the user's own function
            text = f"the meter fails on a network: {type(error).__name__}: {error}"
            raise BudgetError(f"{text}; it takes a network and returns its milliseconds") from error
        if not 0 < milliseconds < math.inf:
            raise BudgetError(f"the meter gives {measured!r}, and a latency is a number of milliseconds above zero")
        return milliseconds

    return ask
