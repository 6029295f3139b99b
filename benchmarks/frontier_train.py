"""Trainings of `frontier.py`, run as recipes, so that all are alike and each resumes where it stopped."""

import dataclasses
import statistics
from collections.abc import Callable
from pathlib import Path

from torch import nn

from prunus import records
from prunus.budget import Budget
from prunus.graph import trace
from prunus.pipeline import Recipe, Watch, stages
from prunus.pipeline.context import RunContext
from prunus.pipeline.network import Network
from prunus.pipeline.recipe import WIDE
from prunus.records import EpochRecord, Recorder, ShrinkRecord
from prunus.tasks.distillation import Distillation
from prunus.train.evaluate import evaluate
from prunus.train.fit import fit
from prunus.train.settings import Train

MARGIN = 0.02  # share by which a measurement must stay below a budget in milliseconds, as in `select`
BISECTIONS = 12


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trained:
    """A network, the run of its last training, and the folders with the records of all its trainings."""

    run: RunContext
    model: nn.Module
    folders: tuple[Path, ...]

    def metrics(self, split: str) -> dict[str, float]:
        """Return the metrics on "validation" or "test"."""
        data = self.run.recipe.data
        samples = data.test() if split == "test" else data.validation()
        return evaluate(self.model, self.run.task, samples, self.run.recipe.train)[0]

    def macs(self) -> int:
        """Return the multiply-adds of the network."""
        return trace(self.model, self.run.inputs).macs()

    def mean_macs(self) -> float:
        """Return the multiply-adds of the network in training, averaged over the epochs."""
        found = [record for folder in self.folders for record in records.read(folder)]
        cuts = {(r.model, r.epoch): r.macs_before for r in found if isinstance(r, ShrinkRecord)}
        epochs = [r for r in found if isinstance(r, EpochRecord)]
        return statistics.mean(cuts.get((r.model, r.epoch), r.macs) for r in epochs)

    def epochs(self) -> int:
        """Return the total epochs of all trainings that led to the network."""
        return sum(isinstance(record, EpochRecord) for folder in self.folders for record in records.read(folder))

    def seconds(self) -> tuple[float, float]:
        """Return the seconds of all epochs without cuts, and those of the cuts."""
        found = [record for folder in self.folders for record in records.read(folder)]
        cuts = sum(record.seconds for record in found if isinstance(record, ShrinkRecord))
        return sum(record.seconds for record in found if isinstance(record, EpochRecord)) - cuts, cuts


def begun(recipe: Recipe) -> RunContext:
    """Return the run of a recipe, in its folder."""
    assert recipe.output is not None
    folder = Path(recipe.output)
    return RunContext(
        recipe=recipe,
        folder=folder,
        recorder=Recorder(folder),
        task=recipe.task.bind(recipe.data),
        inputs=recipe.data.train()[0][0][None],
        watch=Watch(),
    )


def walked(recipe: Recipe, wide: Trained | None = None) -> Trained:
    """Run the trainings of a recipe that follow its baseline `wide`, as `prunus.run` does, with shrinking if set."""
    run = begun(recipe)
    baseline = None if wide is None else Network(name=WIDE, model=wide.model)
    reached = stages.run_stages(run, None, baseline)[-1].model
    return Trained(run=run, model=reached, folders=(*(() if wide is None else wide.folders), run.folder))


def fitted(
    run: RunContext,
    model: nn.Module,
    *,
    name: str = "narrow",
    settings: Train | None = None,
    teacher: Trained | None = None,
    after: Trained | None = None,
) -> Trained:
    """Train `model` without shrinking, with `settings` or those of the run's recipe, and `teacher` if it is given.

    The epochs of `after`, or of the teacher, are added to those of this training.
    """
    task = run.task if teacher is None else Distillation().wrap(run.task, teacher.model)
    training = run.training(name, settings or run.recipe.train, task)
    before = after or teacher
    folders = (*(() if before is None else before.folders), run.folder)
    return Trained(run=run, model=fit(training, model, run.inputs).model, folders=folders)


def costs(run: RunContext, wide: nn.Module, budget: Budget) -> tuple[Callable[[nn.Module], float], float]:
    """Return a function from a network to its cost as a share of the wide network's, and the budget's share."""
    if budget.latency is not None:
        meter = run.meter(wide)
        whole = meter(wide)
        return lambda model: meter(model) / whole, (1 - MARGIN) * budget.latency
    assert budget.macs is not None
    macs = trace(wide, run.inputs).macs()
    return lambda model: trace(model, run.inputs).macs() / macs, budget.macs


def largest(make: Callable[[float], nn.Module], cost: Callable[[nn.Module], float], bound: float) -> nn.Module:
    """Return `make(share)` for the largest share in (0, 1) of cost within `bound`; the cost grows with the share."""
    low, high, best = 0.0, 1.0, None
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        model = make(middle)
        if cost(model) <= bound:
            low, best = middle, model
        else:
            high = middle
    if best is None:
        raise ValueError(f"no network of this kind costs as little as {bound:.0%} of the wide one")
    return best
