"""One training step: loss, gradients, optimizer, penalties, pressure on groups, average of the weights."""

import math

import torch
from torch import Tensor, nn

from prunus.budget.controller import thresholds
from prunus.errors import TrainingError
from prunus.penalties import taylor
from prunus.train.contracted import through_kernels
from prunus.train.evaluate import autocast
from prunus.train.job import TrainingJob
from prunus.train.training_state import TrainingState

IMPORTANCE_MEMORY = 0.98  # decay of the running mean over batches: about the last fifty count


def step(state: TrainingState, training: TrainingJob, inputs: Tensor, target: Tensor, steps_left: int) -> float:
    """Train on one batch and return its loss.

    Args:
        state: changed in place.
        training: gives the task and the settings.
        inputs: [N, C, H, W].
        target: of the task.
        steps_left: in the running segment, this one included; 0 outside all segments.

    Raises:
        TrainingError: the loss or a gradient is not finite; the weights are unchanged.
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
    if trouble := _non_finite(value, state.model):
        raise TrainingError(_non_finite_message(trouble, state, training))
    if state.penalty is not None:
        _update_importance(state)
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


def press_(state: TrainingState, steps_left: int) -> None:
    """Shrink the groups under pressure by one step; the last step of a segment makes them exactly zero."""
    if state.penalty is not None and bool(state.pressed.any()):
        norms = state.penalty.slices.norms()
        state.penalty.shrink_(thresholds(norms, state.pressed, steps_left), norms)


def _non_finite(loss: float, model: nn.Module) -> str | None:
    """Return what is not finite, or None; after the backward pass, when all processes have the same gradients."""
    if not math.isfinite(loss):
        return f"the loss is {loss}"
    gradients = {path: p.grad for path, p in model.named_parameters() if p.grad is not None}
    if math.isfinite(nn.utils.get_total_norm(gradients.values())):
        return None
    paths = [path for path, gradient in gradients.items() if not bool(gradient.isfinite().all())]
    if not paths:  # only the norm overflows
        return None
    more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    return f"the gradient of {paths[0]}{more} is not finite, though the loss is {loss:.4g},"


def _non_finite_message(trouble: str, state: TrainingState, training: TrainingJob) -> str:
    progress = state.progress
    return (
        f"{trouble} in epoch {progress.epoch + 1}, step {progress.step + 1} ({training.name}): training stops before "
        f"the weights are touched; the checkpoints in {training.checkpoints}, of the {progress.epoch} epochs before, "
        f"are kept. A lower learning rate (now {state.optimizer.param_groups[0]['lr']:.1e}), warmup_epochs or "
        "precision: float32 are the usual cures"
    )


def _update_importance(state: TrainingState) -> None:
    """Update the running mean of the Taylor importance with this batch's."""
    assert state.penalty is not None
    seen = taylor(state.penalty.slices).cpu()
    fresh = not bool(state.importance.any())
    state.importance = seen if fresh else torch.lerp(seen, state.importance, IMPORTANCE_MEMORY)
