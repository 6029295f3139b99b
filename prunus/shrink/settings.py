"""The settings of a Shrinker: those of the controller, and the unit of its schedule."""

from collections.abc import Sequence
from dataclasses import replace

from prunus.budget import Budget
from prunus.budget.controller import Controller, Pace
from prunus.budget.schedule import Schedule
from prunus.errors import BudgetError, RecipeError
from prunus.penalties.keep import patterns_of

SEGMENTS = 20  # in a whole training, unless their length is given


def controller_of(
    budget: Budget | Sequence[Budget],
    keep: str | Sequence[str],
    pace: Pace,
    begin: float | None,
    end: float | None,
    every: int | None,
    settled: float | None,
    *,
    steps: int | None,
    epochs: int | None,
) -> Controller:
    """Return the controller; `every` counts epochs, or periods of a schedule in steps.

    Raises:
        BudgetError: there is no budget.
        RecipeError: a setting is invalid.
    """
    budgets = [budget] if isinstance(budget, Budget) else budget
    if not isinstance(budgets, Sequence) or not budgets or not all(isinstance(each, Budget) for each in budgets):
        raise BudgetError(
            f"Shrinker takes a Budget, as in budget=prunus.Budget(macs=0.4), not {budget!r:.80}; or a list of them"
        )
    for name, value in (("steps", steps), ("epochs", epochs), ("every", every)):
        if value is not None and (type(value) is not int or value < 1):
            raise RecipeError(f"Shrinker: {name} is {value!r}: it must be a whole number from 1")
    if steps is not None and epochs is not None and steps < epochs:
        raise RecipeError(f"Shrinker: steps={steps} in epochs={epochs}: there is at least one in each")
    if epochs is None and steps is not None and (every or 1) > steps:
        raise RecipeError(f"Shrinker: every is {every}, and the whole training has {steps} steps: it must be shorter")
    *passed, last = (replace(each, keep=(*each.keep, *patterns_of(keep))) for each in budgets)
    every = every or 1 if steps is None or epochs else 1  # in a schedule in steps, a segment is one period
    family = (*passed, last) if passed else ()
    return Controller(budget=last, budgets=family, pace=pace, begin=begin, end=end, every=every, settled=settled)


def schedule_of(controller: Controller, steps: int | None, epochs: int | None, every: int | None) -> Schedule:
    """Return the schedule of a training of `steps` or `epochs`; it has no segments where neither is known."""
    if steps is None or epochs is not None:
        return Schedule(controller=controller, periods=epochs)
    length = every or max(1, steps // SEGMENTS)
    return Schedule(controller=controller, periods=steps // length, length=length)
