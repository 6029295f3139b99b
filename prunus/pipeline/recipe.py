"""The recipe: all settings of a run in one typed tree; its fields are the YAML keys."""

import dataclasses
import math
import re
from typing import Literal

from prunus.backends.target import Target
from prunus.budget.controller import Controller
from prunus.budget.schedule import Schedule
from prunus.data.interface import Data
from prunus.deploy import BenchmarkSettings, Quantize
from prunus.errors import RecipeError
from prunus.gate.protect import Protect
from prunus.gate.settings import Gate
from prunus.models.factory import ModelFactory
from prunus.models.weights import Weights
from prunus.penalties import Combined, Penalty
from prunus.pipeline.reshape import Reshaping
from prunus.tasks.distillation import Distillation
from prunus.tasks.interface import Task
from prunus.tasks.segmentation import Segmentation
from prunus.train.settings import Train

MOST_SEEDS = 2**31
WIDE, JOINT, NARROW, ENCODER, SCRATCH = "wide", "joint", "narrow", "encoder", "scratch"


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderStage:
    """A first stage that trains the model's encoder alone, on masks downsampled to its output (ERFNet).

    The model must take `encoder_only=True` and hold the encoder as `encoder`.
    """

    train: Train = Train()
    task: Task = Segmentation(class_weight_offset=1.2)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """A step from the network as built to the deployed one: edits, then training.

    Attributes:
        name: name of the stage in records, files and the report.
        edits: edits applied one after the other before the training.
        train: the training settings; null: this stage does not train.
        penalties: penalties of the training, one proximal step after the other; channels that become zero are removed
            after each epoch. On an expanded layer they act on the kernel that it contracts to.
        shrink: the budget to shrink to during the training.
        distillation: distillation from the wide network, as a part of the loss.
    """

    name: str
    edits: tuple[Reshaping, ...] = ()
    train: Train | None = None
    penalties: tuple[Penalty, ...] = ()
    shrink: Controller | None = None
    distillation: Distillation | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", self.name) or self.name.split("-")[0] in _TAKEN:
            raise RecipeError(
                f"a stage's name is lower-case letters, digits, _ and -, and none of {', '.join(_TAKEN)}; "
                f"not {self.name!r}"
            )
        if self.train is None and (self.penalties or self.shrink is not None or self.distillation is not None):
            raise RecipeError(
                f"stage {self.name}: penalties, shrink and distillation act while it trains: give `train`"
            )
        if self.train is not None and self.shrink is not None:
            Schedule(controller=self.shrink, periods=self.train.epochs)  # refuses budgets without a segment

    @property
    def penalty(self) -> Penalty | None:
        """All penalties combined; None if there are none."""
        return Combined(penalties=self.penalties) if self.penalties else None


_TAKEN = (WIDE, NARROW, ENCODER, SCRATCH)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Deploy:
    """How the trained networks are exported, checked for parity and timed."""

    benchmark: BenchmarkSettings = BenchmarkSettings()
    parity_samples: int = 8  # test images
    parity_tolerance: float = 1e-4  # relative
    decode: bool = False  # whether the files also decode: a detector's file then outputs boxes instead of raw heads
    choose_forms: bool = True  # time each factorised layer as one layer too, and deploy the faster form
    quantize: Quantize | None = None  # also deploy the narrow network in INT8; null: not

    def __post_init__(self) -> None:
        if self.parity_samples < 1 or not self.parity_tolerance > 0:
            raise RecipeError(
                f"deploy: parity_samples {self.parity_samples} must be at least 1, parity_tolerance "
                f"{self.parity_tolerance} above zero: parity needs at least one sample"
            )
        if self.decode and self.quantize is not None:
            raise RecipeError(
                "deploy.quantize tests the accuracy on the network's raw outputs, and with deploy.decode the files "
                "give others: leave one of the two out"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class LearningRates:
    """One learning rate for each kind of optimizer."""

    sgd: float = 0.05
    adam: float = 1e-3

    def __post_init__(self) -> None:
        if not 0 < self.sgd < math.inf or not 0 < self.adam < math.inf:
            raise RecipeError(f"from_scratch_rates: sgd {self.sgd} and adam {self.adam} must be above zero, and finite")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """A whole run: train wide, reshape and shrink, deploy, report.

    The narrow network is reached in stages: the joint training, whose keys (`edits`, `train`, `penalties`, `shrink`,
    `distillation`, as in `Stage`) are those of the recipe itself, then those of `then`.

    Attributes:
        start: initial weights of the joint training. "wide": the weights of the trained wide network; "fresh": those
            with which the wide network's training starts too; "auto": "wide" if the wide network is trained, by this
            run or before (all its `weights`), and the joint training shrinks it without `edits`, else "fresh".
        weights: initial weights of all trainings: a file's path, or the settings of `Weights`; null: fresh weights.
        target: where the network will run: networks are timed there, and budgets in milliseconds are measured there
            unless they name a target of their own; null: the first available one of `deploy.benchmark`.
        baseline: also train the network as built, without penalties or shrinking, with the settings `train`: the wide
            network of all comparisons, and the teacher of every distillation. "untrained": the wide network is the
            network with the given weights, not trained further.
        from_scratch: also train the narrow architecture with fresh weights for as many epochs, with SGD and with Adam.
        from_scratch_rates: learning rates of these trainings, except for the recipe's own kind of optimizer.
        gate: compares the wide with the narrow network, slice by slice, before the export; null: no comparison.
        protect: classes and conditions with more weight in the trainings of all stages; null: none.
        report_samples: number of test images shown with ground truth and predictions.
        output: folder of the run; null: runs/<name>.
    """

    name: str
    data: Data
    model: ModelFactory
    weights: Weights | str | None = None
    target: Target | None = None
    task: Task = Segmentation()
    edits: tuple[Reshaping, ...] = ()
    train: Train = Train()
    penalties: tuple[Penalty, ...] = ()
    shrink: Controller | None = Controller()
    start: Literal["auto", "wide", "fresh"] = "auto"
    distillation: Distillation | None = None
    then: tuple[Stage, ...] = ()
    encoder_stage: EncoderStage | None = None
    baseline: bool | Literal["untrained"] = True
    from_scratch: bool = False
    from_scratch_rates: LearningRates = LearningRates()
    deploy: Deploy = Deploy()
    gate: Gate | None = None
    protect: Protect | None = None
    report_samples: int = 4
    seed: int = 0
    output: str | None = None

    def __post_init__(self) -> None:
        if self.report_samples < 0 or not 0 <= self.seed < MOST_SEEDS:
            raise RecipeError(
                f"report_samples is {self.report_samples} and must be zero or more, seed is {self.seed} and must lie "
                f"between 0 and {MOST_SEEDS - 1}"
            )
        if self.starting_weights is not None and self.encoder_stage is not None:
            raise RecipeError(
                "weights and encoder_stage exclude each other: the encoder stage begins with fresh weights; give the "
                "encoder's own as `weights: {path: ..., into: encoder}`, and encoder_stage: null"
            )
        if self.baseline == "untrained" and self.starting_weights is None:
            raise RecipeError(
                "baseline: untrained compares with the network that `weights` give: name them, or train it"
            )
        names = [stage.name for stage in self.stages]
        if twice := [name for name in names if names.count(name) > 1]:
            raise RecipeError(f"then: two stages are called {twice[0]} (the first is called {JOINT}): rename one")
        if self.gate is not None and not self.baseline:
            raise RecipeError("gate compares with the wide network, so it must be trained: baseline: true")
        early = [stage.name for stage in self.stages[:-1] if stage.shrink is not None and stage.shrink.budgets]
        if early:
            raise RecipeError(
                f"shrink.budgets of the stage {early[0]}: the networks of a family are deployed as they come out, and "
                f"{self.stages[-1].name} follows: give the budgets to that last stage"
            )
        taught = [stage.name for stage in self.stages if stage.distillation is not None]
        if taught and not self.baseline:
            raise RecipeError(f"stage {taught[0]} learns from the wide network, so it must be trained: baseline: true")
        if self.start == "wide" and not self.baseline:
            raise RecipeError(
                "start: wide begins with the wide network's weights, so it must be trained: baseline: true"
            )

    @property
    def starting_weights(self) -> Weights | None:
        """The initial weights of all trainings; None for fresh weights."""
        return Weights(path=self.weights) if isinstance(self.weights, str) else self.weights

    @property
    def benchmark(self) -> BenchmarkSettings:
        """How the networks are timed: first on the targets of the budgets, then as in `deploy.benchmark`."""
        shrinks = [stage.shrink for stage in self.stages if stage.shrink is not None]
        budgets = [budget.target for shrink in shrinks for budget in shrink.sequence]
        named = [target for target in (*budgets, self.target) if target is not None and not target.remote]
        settings = self.deploy.benchmark
        return dataclasses.replace(settings, targets=tuple(dict.fromkeys((*named, *settings.targets))))

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages from the network as built to the deployed one."""
        joint = Stage(
            name=JOINT,
            edits=self.edits,
            train=self.train,
            penalties=self.penalties,
            shrink=self.shrink.on_trained() if self.shrink is not None and self.starts_wide else self.shrink,
            distillation=self.distillation,
        )
        return (joint, *self.then)

    @property
    def starts_wide(self) -> bool:
        """Whether the joint training starts with the trained wide network's weights."""
        given = self.starting_weights
        trained = self.baseline is True or (self.baseline == "untrained" and given is not None and given.is_whole)
        shrinks = trained and self.shrink is not None and not self.edits
        return self.start == "wide" or (self.start == "auto" and shrinks)
