"""All that changes while a network trains, and its way into a checkpoint and back."""

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from prunus.budget.controller import Target
from prunus.errors import CheckpointError
from prunus.graph import ChannelGroups, trace
from prunus.penalties import BoundGroupLasso, GroupLasso
from prunus.surgery import Plan, apply
from prunus.train import checkpoint
from prunus.train.settings import Train
from prunus.train.tree import flatten, random_state, set_random_state, unflatten


@dataclasses.dataclass(kw_only=True)
class Progress:
    """Numbers of the training; plain data."""

    epoch: int = 0  # epochs done
    step: int = 0  # steps done in the running epoch
    loss: float = 0.0  # summed over the running epoch's steps
    seconds: float = 0.0  # of training and shrinking so far
    records: int = 0  # lines of the run's records


@dataclasses.dataclass(kw_only=True)
class State:
    """The network as it is now, what trains it, and what is known of it.

    Attributes:
        plan: all edits so far, from the network as it was built.
        groups: channel groups of `model` as it is now.
        penalty: the group lasso on them; None where the network does not shrink.
        target: the budget, fixed on the wide network; None where the network does not shrink.
        importance: running mean of the groups' Taylor importance, [num_groups].
        pressed: groups under pressure in the running segment, bool [num_groups].
    """

    model: nn.Module
    optimizer: Optimizer
    scheduler: LRScheduler
    ema: AveragedModel | None
    groups: ChannelGroups
    penalty: BoundGroupLasso | None
    target: Target | None
    importance: Tensor
    pressed: Tensor
    plan: Plan
    progress: Progress

    def aim(self, target: Target) -> None:
        """Give the training a budget to shrink to."""
        self.target, self.penalty = target, GroupLasso().bind(self.model, self.groups)

    @property
    def evaluated(self) -> nn.Module:
        """The network that is evaluated and deployed: the average where one is kept."""
        return self.model if self.ema is None else self.ema.module


def start(model: nn.Module, inputs: Tensor, settings: Train, steps_per_epoch: int, plan: Plan) -> State:
    """Return the state of a training that begins with `model`, which `plan` made of the network as built."""
    model.to(settings.torch_device())
    groups = trace(model, inputs.to(settings.torch_device()))
    optimizer = settings.optimizer.build(model)
    return State(
        model=model,
        optimizer=optimizer,
        scheduler=settings.scheduler(optimizer, steps_per_epoch),
        ema=averaged(model, settings),
        groups=groups,
        penalty=None,
        target=None,
        importance=torch.zeros(len(groups)),
        pressed=torch.zeros(len(groups), dtype=torch.bool),
        plan=plan,
        progress=Progress(),
    )


def averaged(model: nn.Module, settings: Train) -> AveragedModel | None:
    """Return the exponential moving average of `model` that the settings ask for."""
    if settings.ema_decay is None:
        return None
    average = get_ema_multi_avg_fn(settings.ema_decay)  # type: ignore[no-untyped-call]
    return AveragedModel(model, multi_avg_fn=average, use_buffers=True)


def save(state: State, folder: Path, *, best: bool = False) -> None:
    """Write a checkpoint of `state`, from which `resume` goes on bit by bit."""
    tree = {
        "model": dict(state.model.state_dict()),
        "optimizer": state.optimizer.state_dict(),
        "scheduler": {"last_epoch": state.scheduler.last_epoch},
        "ema": None if state.ema is None else dict(state.ema.state_dict()),
        "importance": state.importance,
        "pressed": state.pressed,
        "random": random_state(),
    }
    tensors, structure = flatten(tree)
    content = {
        "plan": state.plan.to_json(),
        "progress": dataclasses.asdict(state.progress),
        "target": None if state.target is None else dataclasses.asdict(state.target),
        "tree": structure,
    }
    checkpoint.write(folder, step=state.progress.epoch, tensors=tensors, state=content, best=best)


def resume(
    found: checkpoint.Checkpoint, model: nn.Module, inputs: Tensor, settings: Train, steps_per_epoch: int
) -> State:
    """Return the state that `found` holds, for a training of `model`, the network as built.

    Raises:
        CheckpointError: the checkpoint is of another network or another optimizer.
    """
    tree: dict[str, Any] = unflatten(found.tensors, found.state["tree"])
    plan = Plan.from_json(found.state["plan"])
    held = found.state["target"]
    state = start(apply(plan, model), inputs, settings, steps_per_epoch, plan)
    if held is not None:
        state.aim(Target(**held))
    try:
        state.model.load_state_dict(tree["model"])
        state.optimizer.load_state_dict(tree["optimizer"])
        if state.ema is not None:
            state.ema.load_state_dict(tree["ema"])
    except (RuntimeError, ValueError, TypeError) as error:
        raise CheckpointError(
            f"{found.path} is of another network or optimizer: {error}; choose another folder"
        ) from error
    _set_scheduler(state, int(tree["scheduler"]["last_epoch"]))
    state.importance, state.pressed = tree["importance"], tree["pressed"]
    state.progress = Progress(**found.state["progress"])
    set_random_state(tree["random"])
    return state


def _set_scheduler(state: State, last_epoch: int) -> None:
    values = state.scheduler.state_dict()
    values["last_epoch"] = last_epoch
    state.scheduler.load_state_dict(values)
