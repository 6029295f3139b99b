"""The meters of a Shrinker: one for each of its budgets that is in milliseconds."""

from collections.abc import Callable, Sequence

from prunus.budget import Budget
from prunus.budget.latency_search import Meter, checked_meter
from prunus.budget.modelled_latency import ModellingMeter, refuse_other_target
from prunus.budget.target import Target
from prunus.errors import BudgetError


def meters_of(
    meter: Meter | Sequence[Meter | None] | None,
    budgets: Sequence[Budget],
    usual: Callable[[Target | None], Meter | None],
) -> tuple[Meter | None, ...]:
    """Return a meter for each budget, None where it is not in milliseconds.

    Args:
        meter: one for all budgets, or one for each; None: the usual ones.
        budgets: that the network passes.
        usual: returns the meter that measures on a target where nobody gives one.

    Raises:
        BudgetError: a budget in milliseconds has no meter, or one that measures on another target.
    """
    given = list(meter) if isinstance(meter, Sequence) else [meter] * len(budgets)
    if len(given) != len(budgets):
        raise BudgetError(f"{len(given)} meters for {len(budgets)} budgets: give one for all, or one for each")
    return tuple(_meter_of(budget, own, usual) for budget, own in zip(budgets, given, strict=True))


def _meter_of(budget: Budget, own: Meter | None, usual: Callable[[Target | None], Meter | None]) -> Meter | None:
    if not budget.is_timed:
        return None
    own = usual(budget.target) if own is None else own
    checked_meter(own, budget.target)
    if isinstance(own, ModellingMeter):
        refuse_other_target(budget, own)
    return own
