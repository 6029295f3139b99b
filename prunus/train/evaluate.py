"""Evaluation of a network on a whole split, with the metrics of its task."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset

from prunus.interrupt import check
from prunus.modules.modes import modes_kept, set_mode_
from prunus.modules.tree import on_device
from prunus.shrink.processes import ALONE, Processes
from prunus.tasks.interface import BoundTask
from prunus.train.batches import evaluation_batches
from prunus.train.contracted import through_kernels
from prunus.train.settings import Train
from prunus.train.workers import death_named

Result = tuple[dict[str, float], dict[str, float | None]]


@torch.no_grad()
def evaluate(
    model: nn.Module,
    task: BoundTask,
    split: Dataset[Any],
    settings: Train,
    processes: Processes = ALONE,
    between: Callable[[], None] = check,
) -> Result:
    """Return the task's metrics of `model` in evaluation mode over all of `split`; restore the model's modes.

    Several processes evaluate a part each and sum the counts: all return the result of a single process.
    `between` is called after each batch, equally often in every process; its exceptions propagate.
    """
    device, metrics = settings.torch_device(), task.metrics()
    processes.sync_buffers_(model)
    with modes_kept(model), death_named():
        set_mode_(model, training=False)
        for batch in evaluation_batches(split, settings, processes):
            if batch is not None:
                inputs, target = batch
                with autocast(settings), through_kernels(model):
                    output = model(inputs.to(device, memory_format=settings.memory_format))
                metrics.update(output, on_device(target, device))
            between()
    return metrics.compute()


def autocast(settings: Train) -> torch.autocast:
    """Return the autocast context of the forward pass."""
    return torch.autocast(settings.torch_device().type, dtype=torch.bfloat16, enabled=settings.precision == "bfloat16")
