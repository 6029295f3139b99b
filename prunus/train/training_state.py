"""The training state: everything that changes during a training, saved to checkpoints and restored."""

import dataclasses
import functools

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from prunus.budget.controller import Controller
from prunus.budget.latency_search import checked_meter
from prunus.graph import ChannelGroups
from prunus.penalties import BoundPenalty, Penalty
from prunus.records import NoteRecord
from prunus.shrink import Shrinker
from prunus.shrink.network import NetworkInTraining
from prunus.surgery import Plan
from prunus.train import checkpoint, penalty_binding
from prunus.train.background import Background
from prunus.train.job import TrainingJob
from prunus.train.tree import flatten, packed, random_state, unpacked


@dataclasses.dataclass(kw_only=True)
class Progress:
    """Numbers of the training; plain data."""

    epoch: int = 0  # epochs done
    step: int = 0  # steps done in the running epoch
    cut: bool = False  # all steps of the running epoch are done, and its zero groups have been removed
    loss: float = 0.0  # sum over the running epoch's steps, for this process's part of the batches
    pressed: int = 0  # groups under pressure in the running epoch
    learning_rate: float = 0.0  # of the last step
    epoch_seconds: float = 0.0  # of training and shrinking in the running epoch
    seconds: float = 0.0  # in the epochs done
    widths: list[list[int]] = dataclasses.field(default_factory=list)  # that selection would have left, per epoch
    settled_at: int | None = None  # epoch at which the pressure began, where it waits for stable widths
    activations: int = 0  # per sample, of the network as built, where the batch grows
    best: float | None = None  # the best value of the main metric on the validation split so far
    skipped: int = 0  # training samples that could not be read, as last recorded
    records: int = 0  # number of records of the run


@dataclasses.dataclass(kw_only=True)
class TrainingState:
    """The network in training, its schedule, penalties and progress.

    Attributes:
        live: the network, its optimizer, the average of its weights and its channel groups, which are cut together.
        network: the module that a step calls: the network, wrapped for several processes.
        regularizer: the recipe's penalty with a numeric strength; None where the recipe has no penalty.
        shape: the regularizer bound to the present network.
        shrinker: reaches the budget; None where the network does not shrink.
    """

    live: NetworkInTraining
    network: nn.Module
    scheduler: LambdaLR
    ema: AveragedModel | None
    regularizer: Penalty | None = None
    shape: BoundPenalty | None = None
    shrinker: Shrinker | None = None
    progress: Progress

    @property
    def model(self) -> nn.Module:
        """The network."""
        return self.live.model

    @property
    def optimizer(self) -> Optimizer:
        """The network's optimizer."""
        return self.live.optimizer

    @property
    def groups(self) -> ChannelGroups:
        """The network's channel groups."""
        return self.live.groups

    @property
    def plan(self) -> Plan:
        """All edits so far, from the network as it was built."""
        return self.live.plan

    @property
    def num_pressed(self) -> int:
        """The number of groups under pressure."""
        return 0 if self.shrinker is None else int(self.shrinker.pressure.pressed.sum())

    def regularize(self, inputs: Tensor) -> None:
        """Bind the regularizer to the present network."""
        if self.regularizer is not None:
            self.shape = penalty_binding.bind(self.regularizer, self.model, self.groups, inputs)

    @property
    def evaluated(self) -> nn.Module:
        """The network to evaluate and deploy: the average of the weights, where one is kept."""
        return self.model if self.ema is None else self.ema.module


def start(
    model: nn.Module,
    inputs: Tensor,
    training: TrainingJob,
    steps_per_epoch: int,
    controller: Controller | None = None,
) -> TrainingState:
    """Return the initial state of a training of `model`, the network as built; `controller` shrinks it.

    Raises:
        BudgetError: the budget cannot be met.
    """
    settings = training.settings
    inputs = inputs.to(settings.torch_device())
    model.to(settings.torch_device(), memory_format=settings.memory_format)  # type: ignore[call-overload]
    optimizer, decay = settings.optimizer.build(model), settings.ema_decay
    shrinker = None if controller is None else _shrinker(model, optimizer, inputs, training, controller)
    live = NetworkInTraining(model, optimizer, (inputs,)) if shrinker is None else shrinker.network
    average = None if decay is None else get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    ema = None if average is None else AveragedModel(model, multi_avg_fn=average, use_buffers=True)
    if ema is not None:
        live.copies.append(ema.module)
    return TrainingState(
        live=live,
        network=training.processes.wrapped(model),
        scheduler=settings.scheduler(optimizer, steps_per_epoch),
        ema=ema,
        shrinker=shrinker,
        progress=Progress(),
    )


def _shrinker(
    model: nn.Module, optimizer: Optimizer, inputs: Tensor, training: TrainingJob, controller: Controller
) -> Shrinker:
    budgets = controller.sequence
    meters = training.meter if isinstance(training.meter, tuple) else (training.meter,) * len(budgets)
    for budget, meter in zip(budgets, meters, strict=True):
        if budget.is_timed and training.processes.first:
            checked_meter(meter)  # a recipe must name its target

    def told(text: str) -> None:
        text = f"{training.name}, after epoch {shrinker.clock.period}: {text}"
        training.recorder.write(NoteRecord(text=text))

    shrinker = Shrinker(
        model,
        optimizer,
        inputs,
        budget=controller.sequence,
        epochs=training.settings.epochs,
        pace=controller.pace,
        begin=controller.begin,
        end=controller.end,
        every=controller.every,
        settled=controller.settled,
        meter=training.meter,
        reference=training.reference,
        told=told,
    )
    return shrinker


def branch(state: TrainingState, training: TrainingJob, background: Background) -> None:
    """Where the network has just reached a budget, write its state as the first checkpoint of the budget's branch.

    Call this before writing the training's own checkpoint, so that no resumed training misses the branch.
    """
    shrinker = state.shrinker
    if shrinker is not None and training.branches and shrinker.schedule.has_just_passed(shrinker.clock):
        name = training.branches[shrinker.num_passed - 1]
        save(state, dataclasses.replace(training, name=name), background, begins=True)


def save(
    state: TrainingState, training: TrainingJob, background: Background, *, best: bool = False, begins: bool = False
) -> None:
    """Copy `state` and write the copy as a checkpoint in the background; `resume` restores it bit for bit.

    All processes take part; process 0 writes. With `begins`, it starts a training without records.
    """
    state.progress.records = 0 if begins else training.recorder.count()
    pressure = None if state.shrinker is None else state.shrinker.pressure
    if state.shrinker is not None:
        clock = state.shrinker.clock
        state.progress.widths, state.progress.settled_at = clock.widths, clock.settled_at
    own = training.processes.gather(packed({"random": random_state(), "loss": state.progress.loss}))
    if not training.processes.first:
        return
    tree = {
        "model": dict(state.model.state_dict()),
        "optimizer": state.optimizer.state_dict(),
        "ema": None if state.ema is None else dict(state.ema.state_dict()),
        "importance": torch.zeros(len(state.groups)) if pressure is None else pressure.importance,
        "pressed": torch.zeros(len(state.groups), dtype=torch.bool) if pressure is None else pressure.pressed,
        "processes": [unpacked(each) for each in own],
    }
    tensors, structure = flatten(tree)
    content = {
        "plan": state.plan.to_json(),
        "progress": dataclasses.asdict(state.progress),
        "target": None if pressure is None else dataclasses.asdict(pressure.goal),
        "tree": structure,
    }
    write = functools.partial(
        checkpoint.write,
        training.checkpoints,
        step=state.progress.epoch,
        tensors={name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()},
        state=content,
        keep=training.settings.keep_checkpoints,
        best=best,
    )
    background.submit(write)
