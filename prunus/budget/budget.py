"""Budget: upper bounds on the deployed network's multiply-adds, parameters and latency."""

import dataclasses
import math
import sys
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from prunus.backends.target import Target
from prunus.errors import BudgetError
from prunus.graph import ChannelGroups
from prunus.penalties.keep import patterns_of

SOLVERS = ("greedy", "exact")
BOUND = {"one_of": "bounds"}  # a recipe that names one bound drops those of the default (`recipe/check.py`)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Budget:
    """Upper bounds on cost: a value of at most 1 is a share of the traced network's cost, a larger one is absolute.

    Attributes:
        macs: multiply-adds at the traced input's size.
        params: parameters.
        latency: share of the traced network's own latency, in (0, 1], as a meter measures it.
        latency_ms: latency in milliseconds; excludes `latency`.
        target: where the latency is measured; None: the recipe's or the meter's.
        min_share: every layer keeps at least this share of its channels. At 0, training may empty layers with a skip
            connection around them (`prunus.surgery.skippable`), to learn the depth; all others keep two channels.
        multiple_of: each layer keeps a multiple of this many channels, to suit the target's kernels; 1: any number.
        keep: layers that keep all their channels, as patterns over their paths: ("stem.*",); see `kept_groups`.
        solver: "greedy" removes the groups with the least importance per cost saved first; "exact" minimises the total
            importance lost, with a proven gap (`prunus.budget.solve`).
        approximate: also remove groups whose removal is approximate (behind a layer norm or a frozen batch norm);
            `coverage()` lists them with the reasons. Only for `select`: the cut changes the function, so train the
            resulting network. Training with a budget compares outputs at each cut, and refuses this.
    """

    macs: float | None = dataclasses.field(default=None, metadata=BOUND)
    params: float | None = dataclasses.field(default=None, metadata=BOUND)
    latency: float | None = dataclasses.field(default=None, metadata=BOUND)
    latency_ms: float | None = dataclasses.field(default=None, metadata=BOUND)
    target: Target | None = None
    min_share: float = 0.1
    multiple_of: int = 1
    keep: tuple[str, ...] = ()
    solver: str = "greedy"
    approximate: bool = False

    def __post_init__(self) -> None:
        for name in ("macs", "params"):
            value = getattr(self, name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= sys.float_info.max:
                raise BudgetError(f"Budget.{name} is {value!r}: it must be above zero (a share up to 1, or a number)")
            if value > 1 and value != round(value):
                raise BudgetError(
                    f"Budget.{name} is {value!r}: a share of the wide network's is at most 1 (0.4 means 40 %), a value "
                    f"above 1 is an absolute number of {name} and must be whole"
                )
        self._check_latency()
        if self.macs is None and self.params is None and not self.is_timed:
            raise BudgetError(
                "Budget bounds nothing: give macs=..., params=... or latency=... (0.4 means 40 % of the wide network's)"
            )
        numbers = isinstance(self.min_share, int | float) and type(self.multiple_of) is int
        if not numbers or not 0 <= self.min_share <= 1 or not 1 <= self.multiple_of < 2**31:
            raise BudgetError(f"Budget.min_share must lie in [0, 1] and multiple_of be a whole number from 1: {self}")

        if type(self.approximate) is not bool:
            raise BudgetError(f"Budget.approximate is {self.approximate!r}: True or False")
        if self.solver not in SOLVERS:
            raise BudgetError(f"Budget.solver is {self.solver!r}; choose one of {', '.join(SOLVERS)}")
        object.__setattr__(self, "keep", patterns_of(self.keep))

    def _check_latency(self) -> None:
        for name, most in (("latency", 1.0), ("latency_ms", sys.float_info.max)):
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if value is not None and not (number and 0 < value <= most):
                raise BudgetError(
                    f"Budget.{name} is {value!r}: latency is a share of the wide network's in (0, 1], latency_ms a "
                    "number of milliseconds above zero"
                )
        if self.latency is not None and self.latency_ms is not None:
            raise BudgetError("Budget has latency and latency_ms: give one of them")
        if not isinstance(self.target, Target | None):
            raise BudgetError(f"Budget.target is {self.target!r:.80}: give a prunus.Target, such as prunus.Target()")
        if self.target is not None and not self.is_timed:
            raise BudgetError(
                f"Budget.target is {self.target}, and no latency is bounded: give latency=... or latency_ms=... with it"
            )

    @property
    def is_timed(self) -> bool:
        """Whether this budget bounds the latency, which must be measured."""
        return self.latency is not None or self.latency_ms is not None

    def candidates(self, groups: ChannelGroups) -> ChannelGroups:
        """Return `groups` in which every group that this budget may remove counts as exact."""
        return dataclasses.replace(groups, exact=groups.removable) if self.approximate else groups

    def limit_ms(self, wide: Callable[[], float]) -> float:
        """Return the bound on the latency in milliseconds; `wide` measures the traced network's latency."""
        if self.latency_ms is not None:
            return self.latency_ms
        return math.inf if self.latency in (None, 1) else self.latency * wide()

    def absolute(self, groups: ChannelGroups) -> dict[str, float]:
        """Return the absolute bounds on "macs" and "params"; shares refer to the network that `groups` describes."""
        return self.bounds({kind: groups.cost.total(kind, groups.all_alive()) for kind in ("macs", "params")})

    def bounds(self, whole: Mapping[str, float]) -> dict[str, float]:
        """Return the absolute bounds on "macs" and "params"; shares refer to the costs `whole`.

        Raises:
            BudgetError: a bounded cost is zero for this network.
        """
        given = {kind: value for kind in ("macs", "params") if (value := getattr(self, kind)) is not None}
        if nothing := [kind for kind in given if not whole[kind]]:
            raise BudgetError(f"the network has no {nothing[0]} that Prunus counts, so there is nothing to bound")
        return {kind: value * whole[kind] if value <= 1 else float(value) for kind, value in given.items()}


def excess(groups: ChannelGroups, alive: Tensor, bounds: Mapping[str, float]) -> float:
    """Return how far the cost with the groups `alive` exceeds `bounds`: the maximum over kinds of cost / bound - 1."""
    return max(groups.cost.total(kind, alive) / bound - 1 for kind, bound in bounds.items())


def out_of_reach(groups: ChannelGroups, alive: Tensor, bounds: Mapping[str, float]) -> BudgetError:
    """Return the error for a smallest network, with the groups `alive`, above `bounds`; name the costliest modules."""
    kind = max(bounds, key=lambda each: excess(groups, alive, {each: bounds[each]}))
    whole = groups.cost.total(kind, alive)
    parts = list(groups.cost.by_module(kind, alive).items())[:3]
    held = ", ".join(f"{name or 'the network itself'} {cost / max(1, whole):.0%}" for name, cost in parts)
    reach = ", ".join(f"{each} {groups.cost.total(each, alive):,}" for each in bounds)
    return BudgetError(
        f"the budget ({', '.join(f'{each} <= {bound:,.0f}' for each, bound in bounds.items())}) cannot be met: the "
        f"smallest reachable is {reach}; most of its {kind} lie in {held}. Raise the budget, lower min_share or "
        "multiple_of, keep fewer layers, train more of them, or see coverage() for what cannot be removed"
    )


def layer_sizes(groups: ChannelGroups) -> dict[str, int]:
    """Return the number of groups that each layer produces."""
    made = groups.layers[groups.layers >= 0]
    counts = torch.bincount(made, minlength=len(groups.layer_names))
    return {name: int(count) for name, count in zip(groups.layer_names, counts, strict=True)}
