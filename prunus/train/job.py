"""A training job: the data, task, settings and folder of one training."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from torch import nn

from prunus.budget.latency_search import Meter
from prunus.data.interface import Data
from prunus.penalties import Penalty
from prunus.records import EpochRecord, Recorder
from prunus.shrink.processes import ALONE, Processes
from prunus.tasks.interface import BoundTask
from prunus.train.settings import Train


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """The data, task, settings and folder of one training, the same in all its processes."""

    name: str  # "wide", "narrow": the name in the records
    data: Data
    task: BoundTask
    settings: Train
    seed: int
    penalty: Penalty | None = None  # channels that become zero are removed after each epoch
    folder: Path  # of the run; checkpoints go to folder/checkpoints/name
    recorder: Recorder
    processes: Processes = ALONE
    shown: Callable[[EpochRecord], None] = lambda record: None  # called with each epoch's record
    meter: Meter | tuple[Meter | None, ...] | None = None  # measures latencies; a tuple: one meter per budget
    branches: tuple[str, ...] = ()  # trainings that branch off at each budget but the last
    reference: nn.Module | None = None  # to whose latency a budget's share refers
    ticked: Callable[[str, int, int, float], None] = lambda name, step, steps, loss: None  # after each step

    @property
    def checkpoints(self) -> Path:
        """The folder of this training's checkpoints."""
        return self.folder / "checkpoints" / self.name
