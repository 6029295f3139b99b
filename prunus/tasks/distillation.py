"""Distillation: a network learns both from a wider network and from the labels (Hinton, Vinyals & Dean 2015)."""

import dataclasses
from typing import Any, final

import torch
from torch import Tensor, nn

from prunus.errors import RecipeError
from prunus.modules.modes import in_evaluation, modes_kept
from prunus.tasks.imitation import distillation_loss
from prunus.tasks.interface import BoundTask, Metric, Target

__all__ = ["Distillation", "Distilled", "distillation_loss"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Distillation:
    """Settings: loss = (1 - weight) * the task's loss + weight * the task's `imitation` of the teacher.

    Attributes:
        weight: of the teacher's part, in [0, 1].
        temperature: above 0.
    """

    weight: float = 0.5
    temperature: float = 4.0

    def __post_init__(self) -> None:
        if not 0 <= self.weight <= 1 or not self.temperature > 0:
            raise RecipeError(
                f"distillation: weight {self.weight} lies in [0, 1], temperature {self.temperature} is above 0"
            )

    def wrap(self, task: BoundTask, teacher: nn.Module) -> "Distilled":
        """Return `task` with the teacher's part in its training loss.

        `teacher` runs in evaluation mode; it is neither changed nor trained.
        """
        return Distilled(task, teacher, self)


@final
class Distilled(BoundTask):
    """A bound task whose training loss includes a teacher; everything else is delegated to the task."""

    def __init__(self, task: BoundTask, teacher: nn.Module, settings: Distillation) -> None:
        self.task, self.teacher, self.settings = task, teacher, settings
        self.main_metric, self.reading = task.main_metric, task.reading

    def loss(self, output: Any, target: Target) -> Tensor:
        """Return the task's own loss, without the teacher, as used in evaluation."""
        return self.task.loss(output, target)

    def training_loss(self, inputs: Tensor, output: Any, target: Target) -> Tensor:
        """Return (1 - weight) * the task's training loss + weight * the task's imitation loss.

        Args:
            inputs: the batch that produced `output`; the teacher also runs on it.
            output: the student's output; its scores are [N, C, ...].
            target: of the task.

        Raises:
            TrainingError: the teacher's output has another shape.
        """
        with torch.no_grad(), modes_kept(self.teacher):
            answer = in_evaluation(self.teacher)(inputs)
        taught = self.task.imitation(output, answer, self.settings.temperature)
        own = self.task.training_loss(inputs, output, target)
        return torch.lerp(own.float(), taught, self.settings.weight)

    def imitation(self, output: Any, answer: Any, temperature: float) -> Tensor:
        """Return the task's own distance between two outputs."""
        return self.task.imitation(output, answer, temperature)

    def scores(self, output: Any) -> Tensor:
        """Return the scores that the task reads from an output."""
        return self.task.scores(output)

    def predict(self, output: Any) -> Target:
        """Return the task's prediction."""
        return self.task.predict(output)

    def metrics(self) -> Metric:
        """Return the task's metric."""
        return self.task.metrics()

    def draw(self, answer: Target, size: tuple[int, int]) -> Tensor:
        """Return the task's drawing of an answer."""
        return self.task.draw(answer, size)

    def draw_on(self, picture: Tensor, answer: Target) -> Tensor:
        """Return the task's drawing of an answer on a picture."""
        return self.task.draw_on(picture, answer)
