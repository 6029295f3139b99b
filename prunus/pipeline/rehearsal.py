"""The rehearsal: run all stages without training, so that an impossible recipe is refused before hours of training."""

import functools
from collections.abc import Callable, Collection

from torch import Tensor, nn

from prunus.budget import Budget
from prunus.budget.latency_search import Meter
from prunus.errors import RecipeError
from prunus.graph import trace
from prunus.interrupt import check
from prunus.pipeline.network import training_name
from prunus.pipeline.recipe import Stage
from prunus.pipeline.stage_edits import plan_edit
from prunus.shrink.goal import goal_of
from prunus.shrink.latency_goal import check_latency_reachable
from prunus.shrink.processes import ALONE, Processes
from prunus.surgery import apply
from prunus.train import penalty_binding
from prunus.train.contracted import expanded


def rehearse(
    stages: tuple[Stage, ...],
    model: nn.Module,
    inputs: Tensor,
    meter: Callable[[nn.Module, Budget], Meter] | None = None,
    processes: Processes = ALONE,
    begun: Collection[str] = (),
) -> None:
    """Run all stages without training.

    Args:
        stages: the recipe's stages.
        model: the network as built.
        inputs: an example, [1, C, H, W].
        meter: returns the meter of a stage, given the stage's initial network and its budget.
        processes: the processes of the run; process 0 measures.
        begun: names of trainings with a checkpoint; their latency budgets have been checked before.

    Raises:
        EditError, RecipeError, BudgetError: a stage is impossible; the message names the stage, and what to do.
    """
    for stage in stages:
        for number in range(len(stage.edits)):
            check()
            model = apply(plan_edit(stage, number, model, inputs), model)
        if stage.train is None:
            continue
        groups = trace(model, inputs)
        if stage.shrink is not None:
            if expanded(model):
                raise RecipeError(
                    f"stage {stage.name}: a budget counts the deployed network's multiply-adds, and the network is "
                    "expanded here: contract it in an earlier stage (prunus.pipeline.Contract), or train it with "
                    "`shrink: null` and a GroupLasso, whose zero channels are removed too"
                )
            for budget in stage.shrink.sequence:
                goal = goal_of(model, groups, inputs, budget)
                if budget.is_timed and training_name(stage) not in begun:
                    timed = functools.partial(meter, model, budget) if meter is not None else None
                    processes.once(functools.partial(check_latency_reachable, model, groups, budget, goal, timed))
        if stage.penalty is not None:
            rate = stage.train.optimizer.learning_rate
            penalty_binding.bind(
                penalty_binding.calibrated(stage.penalty, model, inputs, rate, 1), model, groups, inputs
            )
    if expanded(model):
        raise RecipeError(
            "the network is still expanded at the end: a stage of `then` must contract it (class_path: "
            "prunus.pipeline.Contract), or all its factors would be deployed"
        )
