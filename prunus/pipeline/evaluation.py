"""Evaluation of the trained networks: metrics on the test split, widths, and the law of removal."""

from typing import Any

from torch import nn

from prunus.budget import Budget
from prunus.budget.family import bounds_of
from prunus.errors import TrainingError
from prunus.graph import ChannelGroups, trace
from prunus.pipeline.context import RunContext
from prunus.pipeline.network import Network, branch_name
from prunus.pipeline.recipe import NARROW
from prunus.records import EvaluationRecord, FamilyRecord, WidthsRecord
from prunus.train.evaluate import evaluate
from prunus.verify import check_removal


def evaluate_on_test(context: RunContext, network: Network) -> None:
    """Record the metrics of a network over the whole test split."""
    context.watch.stage(f"evaluating the {network.name} network")
    split, device = context.recipe.data.test(), context.recipe.train.torch_device()
    metrics, per_class = evaluate(network.model.to(device), context.task, split, context.recipe.train)
    groups = trace(network.model, context.inputs.to(device))
    context.recorder.write(
        EvaluationRecord(
            model=network.name,
            split="test",
            images=len(split),
            metrics=metrics,
            per_class=per_class,
            macs=groups.macs(),
            params=groups.params(),
            training_seconds=network.seconds,
        )
    )


def record_widths(context: RunContext, wide: ChannelGroups, narrow: ChannelGroups) -> None:
    """Record the width of each layer as built and as learned."""
    before, after = wide.widths(), narrow.widths()
    context.recorder.write(
        WidthsRecord(
            layers=tuple(before),
            initial=tuple(before.values()),
            learned=tuple(_units(after, name) for name in before),
        )
    )


def record_family(context: RunContext) -> None:
    """Record the networks of a family, the largest first, and the budget of each."""
    shrink = context.recipe.stages[-1].shrink
    if shrink is not None and shrink.budgets:
        *passed, last = shrink.sequence
        for name, budget in [*((branch_name(budget), budget) for budget in passed), (NARROW, last)]:
            context.recorder.write(FamilyRecord(model=name, budget=bounds_of(budget), target=_target(budget)))


def _target(budget: Budget) -> dict[str, Any]:
    """Return the fields by which the records of the budget's own target are recognised."""
    target = budget.target
    if target is None:
        return {}
    precision = "int8" if target.precision == "int8" else "float32"
    return {"backend": target.backend, "threads": target.threads, "precision": precision}


def _units(widths: dict[str, int], name: str) -> int:
    """Return a layer's width, or that of the last layer that replaced it; 0 if it was removed."""
    return widths.get(name, next((widths[path] for path in reversed(widths) if path.startswith(f"{name}.")), 0))


def check_removal_law(context: RunContext, model: nn.Module) -> None:
    """Test the law of removal on the trained network and record it: zero half of its groups, remove them, compare the
    outputs.

    Raises:
        TrainingError: the output changed by more than rounding.
    """
    context.watch.stage("checking the removal of zero channels")
    record = check_removal(model, context.inputs, seed=context.recipe.seed)
    context.recorder.write(record)
    if not record.passed:
        raise TrainingError(
            f"removing {record.removed} zero channel groups from the trained network changed its output by "
            f"{record.max_rel_diff:.2e} relative, where {record.tolerance:.0e} is rounding (in float64: "
            f"{record.max_rel_diff_float64}): the groups of this network are wrong; please report it with the model's "
            "code"
        )
