"""The training state: everything that changes during a training, saved to a checkpoint and restored."""

import dataclasses
import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from prunus.budget.controller import Controller, Target
from prunus.budget.schedule import Clock
from prunus.errors import CheckpointError, EditError, TraceError
from prunus.graph import ChannelGroups
from prunus.penalties import BoundPenalty, Penalty
from prunus.records import NoteRecord
from prunus.shrink import Shrinker
from prunus.shrink.network import NetworkInTraining
from prunus.shrink.state import FORMAT, restore_
from prunus.shrink.state import Progress as ShrinkingProgress
from prunus.surgery import Plan
from prunus.train import checkpoint, penalty_binding
from prunus.train.background import Background
from prunus.train.job import TrainingJob
from prunus.train.settings import Train
from prunus.train.state_check import check_optimizer, plan_of, tree_of, typed_part
from prunus.train.tree import flatten, packed, random_state, set_random_state, unpacked


@dataclasses.dataclass(kw_only=True)
class Progress:
    """Numbers of the training; plain data."""

    epoch: int = 0  # epochs done
    step: int = 0  # steps done in the running epoch
    cut: bool = False  # the running epoch's steps are all done, and what they brought to zero is cut away
    loss: float = 0.0  # summed over the running epoch's steps, of this process's part of the batches
    pressed: int = 0  # groups under pressure in the running epoch
    learning_rate: float = 0.0  # of the last step
    epoch_seconds: float = 0.0  # of training and shrinking in the running epoch
    seconds: float = 0.0  # in the epochs done
    widths: list[list[int]] = dataclasses.field(default_factory=list)  # that selection would have left, epoch by epoch
    settled_at: int | None = None  # the epoch at which the pressure began, where it waits until the widths settle
    activations: int = 0  # of the network as built, a sample; where the batch grows
    best: float | None = None  # the best value of the main metric on the validation split so far
    skipped: int = 0  # training samples that could not be read, as far as told
    records: int = 0  # lines of the run's records


@dataclasses.dataclass(kw_only=True)
class TrainingState:
    """The network as it is now, what trains it, and what is known of it.

    Attributes:
        live: the network, its optimizer, the average of its weights and its channel groups, which are cut together.
        network: what a step calls: the network, wrapped where there are several processes.
        regularizer: what the recipe trains with, at a strength that is known; None where it has no penalties.
        shape: the regularizer on the network as it is now.
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
        """Its optimizer."""
        return self.live.optimizer

    @property
    def groups(self) -> ChannelGroups:
        """Its channel groups."""
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
        """The network that is evaluated and deployed: the average where one is kept."""
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
    model.to(settings.torch_device(), memory_format=settings.memory_format)  # type: ignore[call-overload]
    optimizer, decay = settings.optimizer.build(model), settings.ema_decay
    live = NetworkInTraining(model, optimizer, (inputs.to(settings.torch_device()),), processes=training.processes)
    average = None if decay is None else get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    ema = None if average is None else AveragedModel(model, multi_avg_fn=average, use_buffers=True)
    if ema is not None:
        live.copies.append(ema.module)
    state = TrainingState(
        live=live,
        network=training.processes.wrapped(model),
        scheduler=settings.scheduler(optimizer, steps_per_epoch),
        ema=ema,
        progress=Progress(),
    )
    if controller is not None:

        def told(text: str) -> None:
            text = f"{training.name}, after epoch {state.progress.epoch}: {text}"
            training.recorder.write(NoteRecord(text=text))

        state.shrinker = Shrinker.of(live, controller, settings.epochs, training.meter, training.reference, told)
    return state


def save(state: TrainingState, training: TrainingJob, background: Background, *, best: bool = False) -> None:
    """Copy `state` and write the copy as a checkpoint in the background; `resume` restores it bit for bit.

    All processes take part; process 0 writes.
    """
    state.progress.records = training.recorder.count()
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
        "target": None if pressure is None else dataclasses.asdict(pressure.target),
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


def resume(
    found: checkpoint.Checkpoint,
    model: nn.Module,
    inputs: Tensor,
    training: TrainingJob,
    steps_per_epoch: int,
    controller: Controller | None = None,
) -> TrainingState:
    """Return the state that `found` holds, for a training of `model`, the network as built.

    Raises:
        CheckpointError: the checkpoint is of another network or another optimizer.
    """
    tree, plan, progress = tree_of(found), plan_of(found), typed_part(found, Progress, "progress")
    target = typed_part(found, Target | None, "target")
    state = start(model, inputs, training, steps_per_epoch, controller)
    try:
        if state.shrinker is not None and target is not None:
            restore_(state.shrinker, plan, tree["importance"], tree["pressed"], _shrinking(progress, target, tree))
        else:
            state.live.replay(plan)
    except (EditError, TraceError, CheckpointError) as error:
        text = f"{found.path} is of another network: {error}; choose another folder with output=..."
        raise CheckpointError(text) from error
    _refuse_other_network(found, tree["model"], state.model.state_dict())
    state.network = training.processes.wrapped(state.model)
    try:
        state.model.load_state_dict(tree["model"])
        state.optimizer.load_state_dict(_under_own_settings(tree["optimizer"], state.optimizer))
        check_optimizer(found, state.optimizer)
        _lay_out_(state.optimizer)
        if state.ema is not None:
            state.ema.load_state_dict(tree["ema"])
        state.progress = progress
        reschedule(state, training.settings, steps_per_epoch)
        _take_own(state, training, tree["processes"])
    except (RuntimeError, ValueError, TypeError, KeyError, IndexError, OverflowError, AttributeError) as error:
        raise CheckpointError(
            f"{found.path} cannot be resumed: {error}; use the recipe that it was begun with, or choose another "
            "folder with output=..."
        ) from error
    return state


def _shrinking(progress: Progress, target: Target, tree: dict[str, Any]) -> ShrinkingProgress:
    """Return where the shrinking is, which is where the training is."""
    steps = 0 if progress.cut else progress.step
    clock = Clock(
        period=progress.epoch + progress.cut,
        step=steps,
        chosen=steps > 0,
        widths=progress.widths,
        settled_at=progress.settled_at,
    )
    return ShrinkingProgress(
        clock=clock, target=target, observed=bool(tree["importance"].any()), measured=True, format=FORMAT, periods=None
    )


def _refuse_other_network(found: checkpoint.Checkpoint, there: dict[str, Tensor], here: dict[str, Tensor]) -> None:
    """Refuse tensors whose names or shapes differ from the network's."""
    shapes = [{name: list(tensor.shape) for name, tensor in tensors.items()} for tensors in (there, here)]
    names = dict.fromkeys((*there, *here))
    unlike = [
        f"{name} is {shapes[0].get(name, 'missing')} there, {shapes[1].get(name, 'missing')} here"
        for name in names
        if shapes[0].get(name) != shapes[1].get(name)
    ]
    if unlike:
        raise CheckpointError(
            f"{found.path} is of another network: {'; '.join(unlike[:3])}; {len(unlike)} of {len(names)} tensors "
            "differ: choose another folder with output=..."
        )


def _take_own(state: TrainingState, training: TrainingJob, every: list[dict[str, Any]]) -> None:
    """Restore the state of this process; where the number of processes has changed, seed the generators anew."""
    processes, progress = training.processes, state.progress
    if len(every) == processes.count:
        own = every[processes.index]
        progress.loss = own["loss"]
        set_random_state(own["random"])
    else:
        progress.loss = sum(own["loss"] for own in every) / len(every)
        torch.manual_seed(hash((training.seed, progress.epoch, progress.step, processes.index)) % 2**63)


def _under_own_settings(saved: dict[str, Any], optimizer: Optimizer) -> dict[str, Any]:
    """Return `saved` with the settings of `optimizer`, since the recipe may have been changed."""
    groups = []
    for own, old in zip(optimizer.state_dict()["param_groups"], saved["param_groups"], strict=True):
        if own.keys() != old.keys():
            raise ValueError("it is of another optimizer than the recipe's")
        if own["params"] != old["params"]:
            raise ValueError("its parameters are not those of the network")
        groups.append(own)
    return {"state": saved["state"], "param_groups": groups}


def _lay_out_(optimizer: Optimizer) -> None:
    """Give the optimizer's state the memory layout of the weights: files are contiguous, fused steps assume it."""
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                laid_out = torch.empty_strided(value.shape, parameter.stride(), dtype=value.dtype, device=value.device)
                state[name] = laid_out.copy_(value)


def reschedule(state: TrainingState, settings: Train, steps_per_epoch: int) -> None:
    """Give `state` the learning rate schedule of `settings`, at the present step."""
    for group in state.optimizer.param_groups:
        group["initial_lr"] = settings.optimizer.learning_rate
    scheduler = settings.scheduler(state.optimizer, steps_per_epoch)
    done = state.progress.epoch * steps_per_epoch + state.progress.step
    scheduler.load_state_dict({**scheduler.state_dict(), "last_epoch": done})
    for group, rate, factor in zip(state.optimizer.param_groups, scheduler.base_lrs, scheduler.lr_lambdas, strict=True):
        group["lr"] = rate * factor(done)
    state.scheduler = scheduler
