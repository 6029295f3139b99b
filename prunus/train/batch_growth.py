"""Batch growth: a larger batch in the memory that shrinking has freed, with a matching learning rate."""

import dataclasses
import math

import torch
from torch import Tensor, nn

from prunus.modules.modes import evaluating
from prunus.train.job import TrainingJob


@torch.no_grad()
def activations(model: nn.Module, inputs: Tensor) -> int:
    """Return the number of activations per image in a forward pass; a training step's memory grows with it."""
    made = [0]

    def count(module: nn.Module, arguments: object, output: object) -> None:
        if isinstance(output, Tensor):
            made[0] += output.numel()

    leaves = [module for module in model.modules() if not any(module.children())]
    hooks = [module.register_forward_hook(count) for module in leaves]
    try:
        with evaluating(model):
            model(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return made[0] // inputs.shape[0]


def with_grown_batch(training: TrainingJob, freed: float) -> TrainingJob:
    """Return `training` with a batch `freed` times as large, for a network that needs 1 / `freed` of the memory.

    The learning rate is scaled with the batch for SGD (Goyal et al. 2017), and with its square root for Adam and AdamW
    (Malladi et al. 2022).
    """
    settings, count = training.settings, training.processes.count
    size = max(settings.batch_size, int(settings.batch_size * freed) // count * count)
    factor = size / settings.batch_size
    optimizer = settings.optimizer
    rate = optimizer.learning_rate * (factor if optimizer.name == "sgd" else math.sqrt(factor))
    settings = dataclasses.replace(
        settings, batch_size=size, optimizer=dataclasses.replace(optimizer, learning_rate=rate)
    )
    return dataclasses.replace(training, settings=settings)
