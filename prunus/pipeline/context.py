"""The context shared by all parts of a run: recipe, folder, recorder, task, example, processes."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from torch import Tensor, nn

from prunus.backends.target import Target
from prunus.budget import Budget
from prunus.budget.latency_search import Meter
from prunus.deploy import TargetMeter
from prunus.deploy.latency_meter import present
from prunus.pipeline.recipe import Recipe
from prunus.records import EpochRecord, Recorder
from prunus.shrink.processes import ALONE, Processes
from prunus.tasks.interface import BoundTask
from prunus.train.job import TrainingJob
from prunus.train.settings import Train


@dataclasses.dataclass(frozen=True, kw_only=True)
class Watch:
    """Callbacks that show the progress of a run; the default shows nothing."""

    stage: Callable[[str], None] = lambda text: None
    epoch: Callable[[EpochRecord], None] = lambda record: None
    step: Callable[[str, int, int, float], None] = lambda name, step, steps, loss: None


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunContext:
    """The context shared by all parts of a run."""

    recipe: Recipe
    folder: Path
    recorder: Recorder
    task: BoundTask
    inputs: Tensor  # one training image, [1, 3, H, W], to trace, export and time networks
    watch: Watch
    processes: Processes = ALONE

    def meter(self, model: nn.Module, budget: Budget | None) -> Meter:
        """Return the meter of `model` and its narrower versions, on the target of `budget`, or of the recipe.

        Raises:
            DeployError: no backend is available for the measurement.
        """
        settings, target = self.recipe.benchmark, self.target(budget)

        def progress(what: str, done: int, whole: int) -> None:
            if done in (1, whole):
                self.watch.stage(f"measuring {what} on {target}: {done} of {whole}")

        return TargetMeter(
            target,
            self.inputs,
            reference=model,
            warmup=settings.warmup,
            repeats=settings.repeats,
            progress=progress,
        )

    def target(self, budget: Budget | None) -> Target:
        """Return the target of `budget`, of the recipe, or else the first available one.

        Raises:
            DeployError: no backend is available.
        """
        named = None if budget is None else budget.target
        return named or self.recipe.target or present(self.recipe.benchmark)[0]

    def training(self, name: str, settings: Train, task: BoundTask) -> TrainingJob:
        """Return the training `name` with `settings`."""
        return TrainingJob(
            name=name,
            data=self.recipe.data,
            task=task,
            settings=settings,
            seed=self.recipe.seed,
            folder=self.folder,
            recorder=self.recorder,
            processes=self.processes,
            shown=self.watch.epoch,
            ticked=self.watch.step,
        )
