"""The trainings of a run, one function each: encoder, wide network, the sequence of stages, training from scratch."""

import dataclasses
from typing import Literal

import torch
from torch import Tensor, nn

from prunus.budget.controller import Controller
from prunus.errors import RecipeError
from prunus.models.factory import build
from prunus.models.weights import load_
from prunus.pipeline.context import RunContext
from prunus.pipeline.network import Network, branch_name, network_name, training_name
from prunus.pipeline.recipe import SCRATCH, WIDE, EncoderStage, Stage
from prunus.pipeline.reinitialization import reinitialized
from prunus.pipeline.stage_edits import apply_edits
from prunus.surgery import Plan, apply, bypass
from prunus.train.fit import fit
from prunus.train.job import TrainingJob
from prunus.train.settings import Train
from prunus.verify import apply_measured, record_of


def build_wide(context: RunContext) -> nn.Module:
    """Build the wide network; the same seed gives the same weights."""
    torch.manual_seed(context.recipe.seed)
    return build(context.recipe.model, context.recipe.data.num_classes)


def train_encoder(context: RunContext, stage: EncoderStage) -> dict[str, Tensor]:
    """Train the encoder alone and return its weights."""
    context.watch.stage("training the encoder")
    torch.manual_seed(context.recipe.seed)
    try:
        model = context.recipe.model(num_classes=context.recipe.data.num_classes, encoder_only=True)  # type: ignore[call-arg]
        encoder = model.get_submodule("encoder")
    except (TypeError, AttributeError) as error:
        raise RecipeError(
            f"encoder_stage: the model cannot be trained in two stages ({error}); it must take encoder_only=True and "
            "hold its encoder as `encoder`, as prunus.models.erfnet.ERFNet does; or set encoder_stage: null"
        ) from error
    fitted = fit(context.training("encoder", stage.train, stage.task.bind(context.recipe.data)), model, context.inputs)
    del encoder
    return dict(fitted.model.get_submodule("encoder").state_dict())


def build_start(context: RunContext, encoder: dict[str, Tensor] | None) -> nn.Module:
    """Build the initial network of the wide training, and of the joint training unless it starts with the wide
    network's weights."""
    model = build_wide(context)
    if context.recipe.starting_weights is not None:
        load_(model, context.recipe.starting_weights)
    if encoder is not None:
        model.get_submodule("encoder").load_state_dict(encoder)
    return model


def train_wide(context: RunContext, encoder: dict[str, Tensor] | None) -> Network:
    """Train the network as built, without penalties or shrinking; with `baseline: untrained`, return it untrained."""
    if context.recipe.baseline == "untrained":
        return Network(name=WIDE, model=build_start(context, encoder).to(context.recipe.train.torch_device()))
    context.watch.stage("training the wide network")
    fitted = fit(
        context.training(WIDE, context.recipe.train, context.task), build_start(context, encoder), context.inputs
    )
    return Network(name=WIDE, model=fitted.model, seconds=fitted.seconds, records=fitted.records)


def run_stages(context: RunContext, encoder: dict[str, Tensor] | None, wide: Network | None) -> list[Network]:
    """Run all stages and return the networks that they produce; the last one is the narrow network."""
    start = build_start(context, encoder)
    if context.recipe.starts_wide:
        assert wide is not None  # else the recipe is refused
        start.load_state_dict(wide.model.state_dict())
    reached, network = list[Network](), Network(name="", model=start)
    for stage in context.recipe.stages:
        network = dataclasses.replace(network, name=network_name(context.recipe.stages, stage))
        if stage.edits:
            context.watch.stage(f"{stage.name}: editing the network")
        network = apply_edits(network, stage, context.inputs)
        trained = [network] if stage.train is None else train_stage(context, stage, stage.train, network, wide)
        reached += trained
        network = trained[-1]
    return reached


def train_stage(
    context: RunContext, stage: Stage, settings: Train, network: Network, wide: Network | None
) -> list[Network]:
    """Train `network`, the result of the earlier stages, with the settings of `stage`.

    With several budgets, the networks of all budgets but the last are returned first: each continues from the point
    where the training met its budget, with the same settings, without shrinking further.
    """
    training = _stage_training(context, stage, settings, network, wide)
    trunk = _trained(context, training, network, stage.shrink)
    branches = list[Network]()
    for name in training.branches:
        context.watch.stage(f"training the branch {name}")
        job = dataclasses.replace(training, name=name, branches=(), meter=None)
        begin = dataclasses.replace(network, name=name)
        branches.append(_trained(context, job, begin, None))
    return [*branches, trunk]


def _stage_training(
    context: RunContext, stage: Stage, settings: Train, network: Network, wide: Network | None
) -> TrainingJob:
    context.watch.stage(f"training the {'shrinking' if stage.shrink else 'reshaped'} network ({stage.name})")
    protect, data = context.recipe.protect, context.recipe.data
    task = context.task if protect is None else protect.task(context.task, data.class_names)
    if stage.distillation is not None:
        assert wide is not None  # else the recipe is refused
        task = stage.distillation.wrap(task, wide.model)
    budgets, first = () if stage.shrink is None else stage.shrink.sequence, context.processes.first
    meters = tuple(  # only process 0 measures
        context.meter(network.model, budget) if budget.is_timed and first else None for budget in budgets
    )
    training = context.training(training_name(stage), settings, task)
    data = data if protect is None else protect.data(data)
    return dataclasses.replace(
        training,
        data=data,
        penalty=stage.penalty,
        meter=meters,
        reference=network.model,
        branches=tuple(map(branch_name, budgets[:-1])),
    )


def _trained(context: RunContext, training: TrainingJob, network: Network, shrink: Controller | None) -> Network:
    """Train the model of `network` and return the resulting network."""
    model = network.model
    if shrink is None and training.penalty is None:
        model = apply(Plan(), model)  # a copy: the network of an earlier stage is deployed too and must not change
    fitted = fit(training, model, context.inputs, shrink)
    inputs = context.inputs.to(training.settings.torch_device())
    vanished = bypass(fitted.model, inputs)  # remove blocks with a layer that training has emptied
    model, edits = apply_measured(fitted.model, vanished, context.inputs)
    return dataclasses.replace(
        network,
        model=model,
        plan=network.plan + fitted.plan + vanished,
        edits=(*network.edits, *map(record_of, fitted.plan), *edits),
        seconds=network.seconds + fitted.seconds,
        records=fitted.records,
    )


def train_from_scratch(context: RunContext, narrow: Network) -> list[Network]:
    """Train the narrow architecture from fresh weights, for the epochs of all stages: with SGD, with Adam, and with the
    recipe's own kind of optimizer if that is another."""
    own, result = context.recipe.train, list[Network]()
    epochs = sum(stage.train.epochs for stage in context.recipe.stages if stage.train is not None)
    rates = context.recipe.from_scratch_rates
    kinds: dict[Literal["sgd", "adam", "adamw"], float] = {"sgd": rates.sgd, "adam": rates.adam}
    for kind, rate in (kinds | {own.optimizer.name: own.optimizer.learning_rate}).items():
        optimizer, name = dataclasses.replace(own.optimizer, name=kind, learning_rate=rate), f"{SCRATCH}-{kind}"
        context.watch.stage(f"training the narrow architecture from scratch ({kind})")
        settings = dataclasses.replace(own, epochs=epochs, optimizer=optimizer)
        model = reinitialized(narrow.model.cpu(), build_wide(context), context.recipe.seed)
        fitted = fit(context.training(name, settings, context.task), model, context.inputs)
        result.append(Network(name=name, model=fitted.model, seconds=fitted.seconds, records=fitted.records))
    return result
