"""Evaluate a network on a whole split."""

from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from prunus.graph.export import modes_kept
from prunus.train.batches import evaluation_batches
from prunus.train.settings import Train

Result = tuple[dict[str, float], dict[str, float | None]]


class Metrics(Protocol):
    """Counts over a set."""

    def update(self, output: Tensor, target: Tensor) -> None:
        """Count a batch."""
        ...

    def compute(self) -> Result:
        """Return the metrics, the main one first, and the main one a class."""
        ...


class Task(Protocol):
    """What the loop asks of a task that is bound to its data."""

    @property
    def main_metric(self) -> str:
        """The metric by which checkpoints are compared; higher is better."""
        ...

    def loss(self, output: Any, target: Tensor) -> Tensor:
        """Return the loss of a batch, a scalar."""
        ...

    def metrics(self) -> Metrics:
        """Return an empty metric."""
        ...


@torch.no_grad()
def evaluate(model: nn.Module, task: Task, split: Dataset[Any], settings: Train) -> Result:
    """Return the task's metrics of `model` in evaluation mode over all of `split`; the model's modes are kept."""
    device, metrics = settings.torch_device(), task.metrics()
    with modes_kept(model):
        model.eval()
        for inputs, target in evaluation_batches(split, settings):
            with autocast(settings):
                output = model(inputs.to(device))
            metrics.update(output, target.to(device))
    return metrics.compute()


def autocast(settings: Train) -> torch.autocast:
    """Return the context in which the forward pass runs."""
    return torch.autocast(settings.torch_device().type, dtype=torch.bfloat16, enabled=settings.precision == "bfloat16")
