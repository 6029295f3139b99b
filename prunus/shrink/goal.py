"""The goal of a training: the network's final costs, and which of its layers may vanish."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from prunus.budget import Budget
from prunus.budget.controller import Goal
from prunus.graph import ChannelGroups
from prunus.modules.given import Inputs
from prunus.penalties.zeros import zero_
from prunus.surgery import Plan, apply, bypass, skippable


def goal_of(
    model: nn.Module, groups: ChannelGroups, inputs: Inputs, budget: Budget, kwargs: Mapping[str, Any] | None = None
) -> Goal:
    """Return the goal of shrinking `model`; with a `min_share` of 0, layers with a skip around them may vanish.

    The search for such layers supports only positional arguments: with `kwargs` no layer vanishes.

    Raises:
        BudgetError: the budget cannot be met.
    """
    return Goal.of(groups, budget, _may_vanish(model, groups, inputs) if budget.min_share == 0 and not kwargs else ())


def _may_vanish(model: nn.Module, groups: ChannelGroups, inputs: Inputs) -> list[str]:
    """Return the layers whose block `bypass` removes once they are empty. Each is tried: with a bias, a padded kernel
    gives a different constant at the border, and a block that stays would cost more than the budget counts."""
    found = list[str]()
    for name in sorted(skippable(model, inputs) & set(groups.layer_names)):
        emptied = apply(Plan(), model)
        zero_(emptied, groups, groups.exact & (groups.layers == groups.layer_names.index(name)))
        if bypass(emptied, inputs):
            found.append(name)
    return found
