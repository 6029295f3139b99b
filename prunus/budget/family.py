"""The budgets of a family of networks, which one training reaches one after the other."""

import dataclasses
import itertools
from collections.abc import Sequence

from prunus.budget.budget import Budget
from prunus.errors import RecipeError

QUANTITIES = ("macs", "params", "latency", "latency_ms")


def family_budgets(budget: Budget, budgets: Sequence[float | Budget]) -> tuple[Budget, ...]:
    """Return the budgets of a family, from the largest network to the smallest.

    Args:
        budget: its settings (`min_share`, `keep`, ...) apply to numbers in `budgets`. Its bound on multiply-adds is
            replaced; any other bounds must equal those of the last budget.
        budgets: a number is a share of the multiply-adds.

    Raises:
        RecipeError: a budget is not below the one before it, or `budget` has bounds of its own.
    """
    found = tuple(
        each
        if isinstance(each, Budget)
        else dataclasses.replace(budget, macs=each, params=None, latency=None, latency_ms=None)
        for each in budgets
    )
    if set(bounds_of(budget)) != {"macs"} and bounds_of(budget) != bounds_of(found[-1]):
        raise RecipeError(
            f"shrink.budget bounds {budget_name(budget)} and shrink.budgets ends at {budget_name(found[-1])}: leave "
            "the bounds out of shrink.budget, or name macs there, which shrink.budgets replaces; keep the rest of it"
        )
    for before, after in itertools.pairwise(found):
        _check_falls(before, after)
    names = [budget_name(each) for each in found]
    if twice := [name for name in names if names.count(name) > 1]:
        raise RecipeError(f"shrink.budgets: two networks would be called {twice[0]}: give them different bounds")
    return found


def bounds_of(budget: Budget) -> dict[str, float]:
    """Return the bounds of `budget`, by kind."""
    return {kind: value for kind in QUANTITIES if (value := getattr(budget, kind)) is not None}


def budget_name(budget: Budget) -> str:
    """Return a name for the network of `budget` in files and records: "macs-0.7", "params-0.5-latency_ms-8"."""
    where = () if budget.target is None else (budget.target.backend.rpartition(".")[2],)
    return "-".join((*(f"{kind}-{value:.12g}" for kind, value in bounds_of(budget).items()), *where))


def _is_comparable(kind: str, before: Budget, after: Budget) -> bool:
    """Whether both bounds on `kind` have the same unit: shares, absolute numbers, or latencies on the same target."""
    if kind.startswith("latency"):
        return before.target == after.target
    return bool((getattr(before, kind) <= 1) == (getattr(after, kind) <= 1))


def _check_falls(before: Budget, after: Budget) -> None:
    first, second = bounds_of(before), bounds_of(after)
    both = first.keys() & second.keys()
    comparable = [kind for kind in both if _is_comparable(kind, before, after)]
    if not both or not all(first[kind] > second[kind] for kind in comparable):
        raise RecipeError(
            f"shrink.budgets: {budget_name(after)} follows {budget_name(before)}: name the budgets from the largest "
            "network to the smallest, each below the one before in what both bound"
        )
