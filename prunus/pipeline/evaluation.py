"""What is known of the networks that a run has trained: metrics, size, units, and that zero channels go unseen."""

from torch import nn

from prunus.errors import TrainingError
from prunus.graph import ChannelGroups, trace
from prunus.pipeline.rehearsal import Network
from prunus.pipeline.stages import Run
from prunus.records import EXACT, EvaluationRecord, WidthsRecord
from prunus.train.evaluate import evaluate
from prunus.verify import check_removal


def evaluate_on_test(run: Run, network: Network) -> None:
    """Record the metrics of a network over the whole test split."""
    run.watch.stage(f"evaluating the {network.name} network")
    split, device = run.recipe.data.test(), run.recipe.train.torch_device()
    metrics, per_class = evaluate(network.model.to(device), run.task, split, run.recipe.train)
    groups = trace(network.model, run.inputs.to(device))
    run.recorder.write(
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


def tell_widths(run: Run, wide: ChannelGroups, narrow: ChannelGroups) -> None:
    """Record the units of each layer as built and as learned."""
    before, after = wide.widths(), narrow.widths()
    run.recorder.write(
        WidthsRecord(
            layers=tuple(before),
            initial=tuple(before.values()),
            learned=tuple(_units(after, name) for name in before),
        )
    )


def _units(widths: dict[str, int], name: str) -> int:
    """Return a layer's units, or those of the last of the layers that took its place; 0 where none did."""
    return widths.get(name, next((widths[path] for path in reversed(widths) if path.startswith(f"{name}.")), 0))


def check_law(run: Run, model: nn.Module) -> None:
    """Record the law on the trained network: zero half of its groups, cut them, compare.

    Raises:
        TrainingError: the output changed by more than rounding.
    """
    run.watch.stage("checking that zero channels go without a trace")
    record = check_removal(model, run.inputs, seed=run.recipe.seed)
    run.recorder.write(record)
    if not record.max_rel_diff < EXACT["float32"]:
        raise TrainingError(
            f"removing {record.removed} zero channel groups from the trained network changed its output by "
            f"{record.max_rel_diff:.2e} relative, above {EXACT['float32']:.0e}: the groups of this network were read "
            "wrongly; please report it with the model's code"
        )
