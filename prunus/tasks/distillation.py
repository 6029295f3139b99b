"""Distillation: a network learns from a wider one as well as from the labels (Hinton, Vinyals & Dean 2015)."""

import dataclasses
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from prunus.errors import RecipeError, TrainingError
from prunus.modules.modes import in_evaluation, modes_kept
from prunus.tasks.interface import BoundTask, Metric
from prunus.tasks.outputs import Reading


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float = 4.0) -> Tensor:
    """Return T^2 KL(softmax(teacher / T) || softmax(student / T)), the mean over samples and positions.

    T^2 keeps the size of the gradients whatever T. Nothing flows back into the teacher.

    Args:
        student: scores [N, C, ...].
        teacher: scores of the same shape.
        temperature: T > 0; above 1 it shows the student how the teacher ranks the wrong classes.

    Raises:
        TrainingError: shapes that differ, or what is no tensor.
    """
    student, teacher = Reading().scores(student), Reading().scores(teacher)
    if student.shape != teacher.shape:
        raise TrainingError(
            f"distillation: the student's output has shape {list(student.shape)}, the teacher's {list(teacher.shape)}; "
            "both must be of the same task at the same resolution"
        )
    wanted = functional.log_softmax(teacher.detach().float() / temperature, dim=1)
    found = functional.log_softmax(student.float() / temperature, dim=1)
    divergence = functional.kl_div(found, wanted, reduction="none", log_target=True).sum(1)
    return temperature**2 * divergence.mean()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Distillation:
    """Settings: loss = (1 - weight) * the task's + weight * `distillation_loss`.

    Attributes:
        weight: of the teacher, in [0, 1].
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
        """Return `task` with the teacher's part in its loss.

        `teacher` is used in evaluation mode; it is neither changed nor trained.
        """
        return Distilled(task, teacher, self)


@final
class Distilled(BoundTask):
    """A bound task whose loss can also listen to a teacher; all else is the task's own."""

    def __init__(self, task: BoundTask, teacher: nn.Module, settings: Distillation) -> None:
        self.task, self.teacher, self.settings = task, teacher, settings
        self.main_metric, self.reading = task.main_metric, task.reading

    def loss(self, output: Any, target: Tensor) -> Tensor:
        """Return the task's own loss, as in evaluation, where nobody teaches."""
        return self.task.loss(output, target)

    def training_loss(self, inputs: Tensor, output: Tensor, target: Tensor) -> Tensor:
        """Return (1 - weight) * the task's loss + weight * the distillation loss.

        Args:
            inputs: the batch that `output` came from; the teacher is asked about it.
            output: what the student returns; its scores are [N, C, ...].
            target: of the task.

        Raises:
            TrainingError: the teacher's output has another shape.
        """
        with torch.no_grad(), modes_kept(self.teacher):
            answer = in_evaluation(self.teacher)(inputs)
        taught = distillation_loss(self.scores(output), self.scores(answer), self.settings.temperature)
        own = self.task.training_loss(inputs, output, target)
        return torch.lerp(own.float(), taught, self.settings.weight)

    def scores(self, output: Any) -> Tensor:
        """Return the scores that the task reads from an output."""
        return self.task.scores(output)

    def predict(self, output: Any) -> Tensor:
        """Return what the task reads from an output."""
        return self.task.predict(output)

    def metrics(self) -> Metric:
        """Return the task's metric."""
        return self.task.metrics()

    def draw(self, answer: Tensor, size: tuple[int, int]) -> Tensor:
        """Return the task's picture of an answer."""
        return self.task.draw(answer, size)
