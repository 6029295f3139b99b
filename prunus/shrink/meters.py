"""The meters of a Shrinker: one for each of its budgets in milliseconds."""

from collections.abc import Sequence

from torch import nn

from prunus.budget import Budget
from prunus.budget.latency_search import Meter, checked_meter
from prunus.budget.modelled_latency import ModellingMeter, refuse_other_target
from prunus.errors import BudgetError
from prunus.modules.given import Inputs


def meters_of(
    budgets: Sequence[Budget],
    meter: Meter | Sequence[Meter | None] | None,
    model: nn.Module,
    example: Inputs | None,
) -> tuple[Meter | None, ...]:
    """Return a meter for each budget; None for a budget that is not in milliseconds.

    Args:
        budgets: the budgets that the network reaches in turn.
        meter: one for all budgets, or one each; None: times `model` on the budget's target.
        model: the network.
        example: its positional arguments; None where it needs others, which Prunus' own meters do not support.

    Raises:
        BudgetError: a budget in milliseconds has no meter, or a meter that measures on another target.
    """
    given = list(meter) if isinstance(meter, Sequence) else [meter] * len(budgets)
    if len(given) != len(budgets):
        raise BudgetError(f"{len(given)} meters for {len(budgets)} budgets: give one for all, or one for each")
    pairs = zip(budgets, given, strict=True)
    return tuple(_meter_of(budget, own, model, example) if budget.is_timed else None for budget, own in pairs)


def _meter_of(budget: Budget, meter: Meter | None, model: nn.Module, example: Inputs | None) -> Meter:
    if meter is None and example is not None:
        from prunus.deploy.target_meter import usual_meter  # imports onnx, which other budgets do not need

        meter = usual_meter(model, example, budget.target)
    checked_meter(meter, budget.target)
    assert meter is not None  # else it was refused
    if isinstance(meter, ModellingMeter):
        refuse_other_target(budget, meter)
    return meter
