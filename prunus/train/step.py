"""One training step: loss, gradients, optimizer, penalties, pressure on groups, and the average of the weights."""

import math

from torch import Tensor, nn

from prunus.errors import TrainingError
from prunus.modules.tree import on_device
from prunus.tasks.interface import Target
from prunus.train.contracted import through_kernels
from prunus.train.evaluate import autocast
from prunus.train.job import TrainingJob
from prunus.train.training_state import TrainingState


def step(state: TrainingState, training: TrainingJob, inputs: Tensor, target: Target) -> float:
    """Train on one batch and return its loss.

    Args:
        state: changed in place.
        training: holds the task and the settings.
        inputs: [N, C, H, W].
        target: the task's target.

    Raises:
        TrainingError: the loss or a gradient is not finite; the weights are unchanged.
    """
    device, rate = training.settings.torch_device(), float(state.optimizer.param_groups[0]["lr"])
    inputs = inputs.to(device, memory_format=training.settings.memory_format)
    with through_kernels(state.model):
        with autocast(training.settings):
            output = state.network(inputs)
        loss = training.task.training_loss(inputs, output, on_device(target, device))
        state.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
    value = loss.item()
    if trouble := _non_finite(value, state.model):
        raise TrainingError(_non_finite_message(trouble, state, training))
    state.optimizer.step()
    state.scheduler.step()
    state.progress.learning_rate = rate
    if state.shape is not None:
        state.shape.after_step_(rate, state.optimizer)
    if state.shrinker is not None:
        state.shrinker.step()
    if state.ema is not None:
        state.ema.update_parameters(state.model)
    return value


def _non_finite(loss: float, model: nn.Module) -> str | None:
    """Name the non-finite loss or gradient, or None; call it after backward, when all processes' gradients agree."""
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
