"""The trainings of a run, one function each; `run` knows their order."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from prunus.budget.latency_search import Meter
from prunus.errors import RecipeError
from prunus.models.factory import build
from prunus.penalties import Penalty
from prunus.pipeline.latency_meter import RunMeter
from prunus.pipeline.recipe import SCRATCH, WIDE, EncoderStage, Recipe, Stage
from prunus.pipeline.rehearsal import Network, measured, network_name, record_of, reshaped, training_name
from prunus.pipeline.reinitialization import fresh
from prunus.records import (
    EpochRecord,
    Recorder,
)
from prunus.surgery import Plan, apply, bypass
from prunus.tasks.interface import BoundTask
from prunus.train.distributed import ALONE, Processes
from prunus.train.fit import Training, fit
from prunus.train.settings import Train


@dataclasses.dataclass(frozen=True, kw_only=True)
class Watch:
    """Callbacks that show a run while it goes on; the default shows nothing."""

    stage: Callable[[str], None] = lambda text: None
    epoch: Callable[[EpochRecord], None] = lambda record: None
    step: Callable[[str, int, int, float], None] = lambda name, step, steps, loss: None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """What all stages share."""

    recipe: Recipe
    folder: Path
    recorder: Recorder
    task: BoundTask
    inputs: Tensor  # one training image, [1, 3, H, W]: what is traced, exported and timed
    watch: Watch
    processes: Processes = ALONE

    def meter(self, model: nn.Module) -> Meter:
        """Return what times the networks that `model` becomes."""
        return RunMeter(model, self.inputs, self.recipe.deploy.benchmark)

    def training(
        self,
        name: str,
        settings: Train,
        task: BoundTask,
        penalty: Penalty | None = None,
        meter: Meter | None = None,
        reference: nn.Module | None = None,
    ) -> Training:
        """Return the training `name` under `settings`."""
        return Training(
            name=name,
            data=self.recipe.data,
            task=task,
            settings=settings,
            penalty=penalty,
            meter=meter,
            reference=reference,
            seed=self.recipe.seed,
            folder=self.folder,
            recorder=self.recorder,
            processes=self.processes,
            shown=self.watch.epoch,
            ticked=self.watch.step,
        )


def build_wide(run: Run) -> nn.Module:
    """Build the wide network; the same seed gives the same weights."""
    torch.manual_seed(run.recipe.seed)
    return build(run.recipe.model, len(run.recipe.data.class_names))


def train_encoder(run: Run, stage: EncoderStage) -> dict[str, Tensor]:
    """Train the encoder alone and return its weights."""
    run.watch.stage("training the encoder")
    torch.manual_seed(run.recipe.seed)
    try:
        model = run.recipe.model(num_classes=len(run.recipe.data.class_names), encoder_only=True)  # type: ignore[call-arg]
        encoder = model.get_submodule("encoder")
    except (TypeError, AttributeError) as error:
        raise RecipeError(
            f"encoder_stage: the model cannot be trained in two stages ({error}); it must take encoder_only=True and "
            "hold its encoder as `encoder`, as prunus.models.erfnet.ERFNet does; or set encoder_stage: null"
        ) from error
    fitted = fit(run.training("encoder", stage.train, stage.task.bind(run.recipe.data)), model, run.inputs)
    del encoder
    return dict(fitted.model.get_submodule("encoder").state_dict())


def build_start(run: Run, encoder: dict[str, Tensor] | None) -> nn.Module:
    """Build the network that every training but the encoder's begins with."""
    model = build_wide(run)
    if encoder is not None:
        model.get_submodule("encoder").load_state_dict(encoder)
    return model


def train_wide(run: Run, encoder: dict[str, Tensor] | None) -> Network:
    """Train the network as built, plainly."""
    run.watch.stage("training the wide network")
    fitted = fit(run.training(WIDE, run.recipe.train, run.task), build_start(run, encoder), run.inputs)
    return Network(name=WIDE, model=fitted.model, seconds=fitted.seconds, records=fitted.records)


def walk(run: Run, encoder: dict[str, Tensor] | None, wide: Network | None) -> list[Network]:
    """Go through all stages and return the network that each leads to; the last is the narrow one."""
    reached, network = list[Network](), Network(name="", model=build_start(run, encoder))
    for stage in run.recipe.stages:
        network = dataclasses.replace(network, name=network_name(run.recipe.stages, stage))
        if stage.edits:
            run.watch.stage(f"{stage.name}: editing the network")
        network = reshaped(network, stage, run.inputs)
        if stage.train is not None:
            network = trained(run, stage, stage.train, network, wide)
        reached.append(network)
    return reached


def trained(run: Run, stage: Stage, settings: Train, network: Network, wide: Network | None) -> Network:
    """Train `network`, which the stages before have led to, as `stage` says."""
    run.watch.stage(f"training the {'shrinking' if stage.shrink else 'reshaped'} network ({stage.name})")
    task = run.task
    if stage.distillation is not None:
        assert wide is not None  # the recipe refuses else
        task = stage.distillation.wrap(task, wide.model)
    model = apply(Plan(), network.model)  # the network before the training is shown too
    timed = stage.shrink is not None and stage.shrink.budget.is_timed
    meter = run.meter(network.model) if timed and run.processes.first else None  # process 0 measures for all
    training = run.training(training_name(stage), settings, task, stage.penalty, meter, network.model)
    fitted = fit(training, model, run.inputs, stage.shrink)
    vanished = bypass(fitted.model, run.inputs.to(settings.torch_device()))  # layers that training has emptied
    model, edits = measured(fitted.model, vanished, run.inputs)
    return dataclasses.replace(
        network,
        model=model,
        plan=network.plan + fitted.plan + vanished,
        edits=(*network.edits, *map(record_of, fitted.plan), *edits),
        seconds=network.seconds + fitted.seconds,
        records=fitted.records,
    )


def train_from_scratch(run: Run, narrow: Network) -> list[Network]:
    """Train the narrow architecture anew, as long as all stages together, with SGD and with Adam."""
    own, result = run.recipe.train, list[Network]()
    epochs = sum(stage.train.epochs for stage in run.recipe.stages if stage.train is not None)
    rates = run.recipe.from_scratch_rates
    kinds: dict[Literal["sgd", "adam", "adamw"], float] = {"sgd": rates.sgd, "adam": rates.adam}
    for kind, rate in (kinds | {own.optimizer.name: own.optimizer.learning_rate}).items():
        optimizer, name = dataclasses.replace(own.optimizer, name=kind, learning_rate=rate), f"{SCRATCH}-{kind}"
        run.watch.stage(f"training the narrow architecture from scratch ({kind})")
        settings = dataclasses.replace(own, epochs=epochs, optimizer=optimizer)
        model = fresh(narrow.model.cpu(), build_wide(run), run.recipe.seed)
        fitted = fit(run.training(name, settings, run.task), model, run.inputs)
        result.append(Network(name=name, model=fitted.model, seconds=fitted.seconds, records=fitted.records))
    return result
