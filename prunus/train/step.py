"""One step of a training: the loss and its gradients, both finite, the optimizer, the penalty, the average."""

import math

import torch
from torch import Tensor, nn

from prunus.budget.controller import thresholds
from prunus.errors import TrainingError
from prunus.penalties import taylor
from prunus.train.contracted import through_kernels
from prunus.train.evaluate import autocast
from prunus.train.job import Training
from prunus.train.training_state import State

IMPORTANCE_MEMORY = 0.98  # of the running mean over batches: about the last fifty


def step(state: State, training: Training, inputs: Tensor, target: Tensor, steps_left: int) -> float:
    """Train on one batch and return its loss.

    Args:
        state: is changed in place.
        training: whose task and settings hold.
        inputs: [N, C, H, W].
        target: of the task.
        steps_left: in the running segment, this one included; 0 outside all segments.

    Raises:
        TrainingError: the loss or a gradient is not finite; the weights are as they were before the step.
    """
    device, rate = training.settings.torch_device(), float(state.optimizer.param_groups[0]["lr"])
    inputs = inputs.to(device, memory_format=training.settings.memory_format)
    with through_kernels(state.model):
        with autocast(training.settings):
            output = state.network(inputs)
        loss = training.task.training_loss(inputs, output, target.to(device))
        state.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
    value = loss.item()
    if trouble := _not_finite(value, state.model):
        raise TrainingError(_said(trouble, state, training))
    if state.penalty is not None:
        _observe(state)
    state.optimizer.step()
    state.scheduler.step()
    state.progress.learning_rate = rate
    if state.shape is not None:
        state.shape.after_step_(rate, state.optimizer)
    if steps_left:
        press_(state, steps_left)
    if state.ema is not None:
        state.ema.update_parameters(state.model)
    return value


def press_(state: State, steps_left: int) -> None:
    """Take the groups under pressure a step nearer to zero; the last one of the segment brings them there exactly."""
    if state.penalty is not None and bool(state.pressed.any()):
        norms = state.penalty.slices.norms()
        state.penalty.shrink_(thresholds(norms, state.pressed, steps_left), norms)


def _not_finite(loss: float, model: nn.Module) -> str | None:
    """Say what is not a number; asked after the backward pass, where all processes have the same gradients."""
    if not math.isfinite(loss):
        return f"the loss is {loss}"
    gradients = {path: p.grad for path, p in model.named_parameters() if p.grad is not None}
    if math.isfinite(nn.utils.get_total_norm(gradients.values())):
        return None
    paths = [path for path, gradient in gradients.items() if not bool(gradient.isfinite().all())]
    if not paths:  # only the norm is too large for a number
        return None
    more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    return f"the gradient of {paths[0]}{more} is not finite, though the loss is {loss:.4g},"


def _said(trouble: str, state: State, training: Training) -> str:
    progress = state.progress
    return (
        f"{trouble} in epoch {progress.epoch + 1}, step {progress.step + 1} ({training.name}): training stops before "
        f"the weights are touched; the checkpoints in {training.checkpoints}, of the {progress.epoch} epochs before, "
        f"are kept. A lower learning rate (now {state.optimizer.param_groups[0]['lr']:.1e}), warmup_epochs or "
        "precision: float32 are the usual cures"
    )


def _observe(state: State) -> None:
    """Add the batch's Taylor importance to its running mean."""
    assert state.penalty is not None
    seen = taylor(state.penalty.slices).cpu()
    fresh = not bool(state.importance.any())
    state.importance = seen if fresh else torch.lerp(seen, state.importance, IMPORTANCE_MEMORY)
