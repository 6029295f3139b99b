"""The recipe: everything that a run is, in one typed tree; its fields are the YAML keys."""

import dataclasses

from prunus.budget.controller import Controller
from prunus.data.interface import Data
from prunus.deploy import BenchmarkSettings
from prunus.models.factory import ModelFactory
from prunus.tasks.interface import Task
from prunus.tasks.segmentation import Segmentation
from prunus.train.settings import Train


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderStage:
    """A first stage that trains the model's encoder alone, on masks sampled down to its output (ERFNet).

    The model must take `encoder_only=True` and hold the encoder as `encoder`.
    """

    train: Train = Train()
    task: Task = Segmentation(class_weight_offset=1.2)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Deploy:
    """How the trained networks are exported, proved equal and timed."""

    benchmark: BenchmarkSettings = BenchmarkSettings()
    parity_samples: int = 8  # test images
    parity_tolerance: float = 1e-4  # relative


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """A whole run: train wide, shrink to a budget, deploy, report."""

    name: str
    data: Data
    model: ModelFactory
    task: Task = Segmentation()
    train: Train = Train()
    shrink: Controller = Controller()
    encoder_stage: EncoderStage | None = None
    baseline: bool = True  # also train the wide network plainly, as long, to compare with
    deploy: Deploy = Deploy()
    report_samples: int = 4  # test images shown with truth and predictions
    seed: int = 0
    output: str | None = None  # folder of the run; null: runs/<name>
