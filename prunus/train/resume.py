"""Resuming a training: the state that a checkpoint holds, restored bit for bit."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from prunus.budget.controller import Controller, Goal
from prunus.budget.schedule import Clock
from prunus.errors import CheckpointError, EditError, TraceError
from prunus.shrink.state import FORMAT, ShrinkerState
from prunus.shrink.state import Progress as ShrinkingProgress
from prunus.train import checkpoint
from prunus.train.job import TrainingJob
from prunus.train.settings import Train
from prunus.train.state_check import check_optimizer, plan_of, tree_of, typed_part
from prunus.train.training_state import Progress, TrainingState, start
from prunus.train.tree import set_random_state


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
    goal = typed_part(found, Goal | None, "target")
    state = start(model, inputs, training, steps_per_epoch, controller)
    try:
        if state.shrinker is not None and goal is not None:
            shrinking = _shrinking(progress, goal, tree)
            saved = ShrinkerState(importance=tree["importance"], pressed=tree["pressed"], plan=plan, progress=shrinking)
            state.shrinker.restore(saved)
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


def _shrinking(progress: Progress, goal: Goal, tree: dict[str, Any]) -> ShrinkingProgress:
    """Return the progress of the shrinking, derived from that of the training."""
    steps = 0 if progress.cut else progress.step
    clock = Clock(
        period=progress.epoch + progress.cut,
        step=steps,
        chosen=steps > 0,
        widths=progress.widths,
        settled_at=progress.settled_at,
    )
    return ShrinkingProgress(
        clock=clock, target=goal, observed=bool(tree["importance"].any()), measured=True, format=FORMAT, periods=None
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
    """Restore this process's state; where the number of processes has changed, reseed the generators."""
    processes, progress = training.processes, state.progress
    if len(every) == processes.count:
        own = every[processes.index]
        progress.loss = own["loss"]
        set_random_state(own["random"])
    else:
        progress.loss = sum(own["loss"] for own in every) / len(every)
        torch.manual_seed(hash((training.seed, progress.epoch, progress.step, processes.index)) % 2**63)


def _under_own_settings(saved: dict[str, Any], optimizer: Optimizer) -> dict[str, Any]:
    """Return `saved` with the settings of `optimizer`, since the recipe may have changed."""
    groups = []
    for own, old in zip(optimizer.state_dict()["param_groups"], saved["param_groups"], strict=True):
        if own.keys() != old.keys():
            raise ValueError("it is of another optimizer than the recipe's")
        if own["params"] != old["params"]:
            raise ValueError("its parameters are not those of the network")
        groups.append(own)
    return {"state": saved["state"], "param_groups": groups}


def _lay_out_(optimizer: Optimizer) -> None:
    """Give the optimizer's state the memory layout of the weights: files are contiguous, and fused steps assume it."""
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
