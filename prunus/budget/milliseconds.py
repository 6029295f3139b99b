"""A budget in milliseconds: solve under a latency model, measure, correct the model, solve again."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from prunus.budget.blocks import Blocks, add_blocks
from prunus.budget.choices import Layer, layer_choices, removed
from prunus.budget.latency_model import LatencyModel
from prunus.budget.solve import Solution, solve
from prunus.budget.tables import Tables
from prunus.errors import BudgetError
from prunus.graph import ChannelGroups

ROUNDS = 5  # networks measured at most, besides the smallest one
NEAR = 0.03  # share of the bound: a latency at most this far below it meets it
AIM = 0.985  # first aim, a share of the bound: halfway from 1 - NEAR to 1
HIGHEST_AIM = 0.998

Measure = Callable[[Tensor], float]  # milliseconds of the network without the groups, bool [num_groups]


@dataclasses.dataclass(frozen=True)
class Round:
    """One network, with its predicted and its measured latency."""

    solution: Solution
    predicted_ms: float
    measured_ms: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reached:
    """The measured networks, among them the best one within the bound.

    Attributes:
        rounds: all networks measured, in order.
        limit_ms: the bound.
        model: the latency model, corrected with each measurement.
    """

    rounds: tuple[Round, ...]
    limit_ms: float
    model: LatencyModel
    predicted_only: bool = False  # nothing was measured: the target is another machine

    @property
    def best(self) -> Round:
        """The network within the bound that keeps the most importance."""
        return max((r for r in self.rounds if r.measured_ms <= self.limit_ms), key=lambda r: r.solution.kept)

    @property
    def met(self) -> bool:
        """Whether the latency (measured, or else predicted) is within the bound and at most 3 % below it."""
        return (1 - NEAR) * self.limit_ms <= self.best.measured_ms <= self.limit_ms

    def __str__(self) -> str:
        best, told = self.best, ", ".join(f"{r.predicted_ms:.3g} -> {r.measured_ms:.3g}" for r in self.rounds)
        if self.predicted_only:
            return (
                f"{best.predicted_ms:.4g} ms predicted where {self.limit_ms:.4g} are allowed, not measured: the target "
                f"is another machine; no widths keep more than {best.solution.gap:.2%} more importance by the model"
            )
        text = (
            f"{best.measured_ms:.4g} ms measured where {self.limit_ms:.4g} are allowed, {best.predicted_ms:.4g} "
            f"predicted; no widths keep more than {best.solution.gap:.2%} more importance by the model "
            f"(predicted -> measured: {told})"
        )
        if self.met:
            return text
        nothing_to_remove = not bool(best.solution.removed.any())
        why = "nothing has to be removed" if nothing_to_remove else f"{len(self.rounds)} measurements came no closer"
        return f"{text}; {best.measured_ms / self.limit_ms:.1%} of the bound is used: {why}"


def solve_milliseconds(
    groups: ChannelGroups,
    importance: Tensor,
    model: LatencyModel,
    measure: Measure,
    limit_ms: float,
    floor: Mapping[str, int],
    *,
    bounds: Mapping[str, float] | None = None,
    multiple_of: int = 1,
    blocks: Blocks | None = None,
) -> Reached:
    """Return the network within `limit_ms` milliseconds, as measured, that loses the least importance.

    Args:
        groups: `prunus.trace` of the network.
        importance: [num_groups].
        model: the latency model on the target.
        measure: measures a network on the target; one within the bound is measured twice, and the slower time counts.
        limit_ms: the bound.
        floor: groups that each layer keeps, by name.
        bounds: further bounds, on "macs" and "params".
        multiple_of: each layer keeps a multiple of this.
        blocks: layers that vanish together, by block.

    Raises:
        BudgetError: the smallest network is too slow; names its latency and the slowest layers.
    """
    problem = Problem(groups, importance, floor, bounds or {}, multiple_of, blocks or {})
    rounds, aim = list[Round](), AIM
    while len(rounds) < ROUNDS:
        found = problem.best(model, aim * limit_ms)
        if found is None and any(r.measured_ms <= limit_ms for r in rounds):
            break
        solution = found or problem.smallest()
        if any(bool((r.solution.removed == solution.removed).all()) for r in rounds):
            if found is None or aim > HIGHEST_AIM:
                break
            aim = (1 + aim) / 2  # the model is accurate there: aim closer
            continue
        rounds.append(_measured(solution, model, measure, limit_ms))
        model = model.fitted([(~r.solution.removed, r.measured_ms) for r in rounds])
        if found is None:
            _required(rounds[-1], model, limit_ms)
        taken, least = rounds[-1].measured_ms, (1 - NEAR) * limit_ms if bool(solution.removed.any()) else 0.0
        if least <= taken <= limit_ms:
            break
    if not any(r.measured_ms <= limit_ms for r in rounds):
        rounds.append(_required(_measured(problem.smallest(), model, measure, limit_ms), model, limit_ms))
    return Reached(rounds=tuple(rounds), limit_ms=limit_ms, model=model)


@dataclasses.dataclass(frozen=True)
class Problem:
    """The problem to solve in every round; the fields are the arguments of `solve_milliseconds`."""

    groups: ChannelGroups
    importance: Tensor
    floor: Mapping[str, int]
    bounds: Mapping[str, float]
    multiple_of: int
    blocks: Blocks

    def best(self, model: LatencyModel, aim_ms: float) -> Solution | None:
        """Return the best widths by the model; None where it predicts that even the smallest network is too slow."""
        if model.predicted(~self.smallest().removed) > aim_ms:
            return None

        def costs(layers: Sequence[Layer]) -> dict[str, Tables]:
            latency = model.tables(self.groups, layers).over(aim_ms)
            add_blocks(latency, layers, self.blocks)
            return {"latency": latency}

        return solve(
            self.groups,
            self.importance,
            self.bounds,
            self.floor,
            self.multiple_of,
            further=costs,
            step=model.step,
        )

    def smallest(self) -> Solution:
        """Return the smallest network."""
        layers = layer_choices(self.groups, self.importance, self.floor, self.multiple_of)
        gone = removed(self.groups, layers, [layer.counts.size - 1 for layer in layers])
        lost = float(self.importance[gone].sum())
        kept = float(self.importance[self.groups.exact].sum()) - lost
        return Solution(removed=gone, lost=lost, kept=kept, bound=lost)


def _measured(solution: Solution, model: LatencyModel, measure: Measure, limit_ms: float) -> Round:
    """Measure a network; one within the bound is measured twice and the slower time counts, since the rounds end at the
    first network that seems to meet it."""
    taken = measure(solution.removed)
    if taken <= limit_ms:
        taken = max(taken, measure(solution.removed))
    return Round(solution, model.predicted(~solution.removed), taken)


def _required(smallest: Round, model: LatencyModel, limit_ms: float) -> Round:
    """Return `smallest`, the smallest network; raise `BudgetError` where it is too slow."""
    if smallest.measured_ms <= limit_ms:
        return smallest
    parts = sorted(model.parts(~smallest.solution.removed).items(), key=lambda part: -part[1])[:5]
    held = ", ".join(f"{name or 'everything outside units'} {taken:.3g} ms" for name, taken in parts)
    raise BudgetError(
        f"the budget (latency <= {limit_ms:.3g} ms) cannot be met: the smallest network takes "
        f"{smallest.measured_ms:.3g} ms, most of it by the model in {held}; raise the budget, lower min_share or "
        "multiple_of, keep fewer layers, or see coverage() for what cannot be removed"
    )
