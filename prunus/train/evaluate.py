"""Evaluation of a network on a whole split, by the metrics of its task."""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from prunus.modules.modes import modes_kept
from prunus.train.batches import evaluation_batches
from prunus.train.contracted import through_kernels
from prunus.train.distributed import ALONE, Processes
from prunus.train.settings import Train

Result = tuple[dict[str, float], dict[str, float | None]]


class Metrics(Protocol):
    """Counts over a set."""

    def update(self, output: Tensor, target: Tensor) -> None:
        """Count a batch."""
        ...

    def compute(self) -> Result:
        """Return the metrics, the main one first, and the main one per class, over the counts of all processes."""
        ...


class Task(Protocol):
    """What the training loop needs of a task that is bound to its data."""

    @property
    def main_metric(self) -> str:
        """The metric by which checkpoints are compared; higher is better."""
        ...

    def loss(self, output: Any, target: Tensor) -> Tensor:
        """Return the loss of a batch, a scalar."""
        ...

    def training_loss(self, inputs: Tensor, output: Any, target: Tensor) -> Tensor:
        """Return the training loss: that of the batch, or one that also uses the inputs, as distillation does."""
        ...

    def metrics(self) -> Metrics:
        """Return an empty metric."""
        ...


@torch.no_grad()
def evaluate(
    model: nn.Module,
    task: Task,
    split: Dataset[Any],
    settings: Train,
    processes: Processes = ALONE,
    between: Callable[[], None] = lambda: None,
) -> Result:
    """Return the task's metrics of `model` in evaluation mode over all of `split`; the model's modes are restored.

    Several processes count a part each, and the metric's counts are summed: all return the result of one process.
    `between` is called after each batch, equally often in every process; its exceptions propagate.
    """
    device, metrics = settings.torch_device(), task.metrics()
    processes.sync_buffers_(model)
    with modes_kept(model):
        model.eval()
        for batch in evaluation_batches(split, settings, processes):
            if batch is not None:
                inputs, target = batch
                with autocast(settings), through_kernels(model):
                    output = model(inputs.to(device, memory_format=settings.memory_format))
                metrics.update(output, target.to(device))
            between()
    return metrics.compute()


def autocast(settings: Train) -> torch.autocast:
    """Return the autocast context of the forward pass."""
    return torch.autocast(settings.torch_device().type, dtype=torch.bfloat16, enabled=settings.precision == "bfloat16")
