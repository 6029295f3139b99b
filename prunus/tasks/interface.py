"""The interface of tasks: settings that bind to data, and the bound task that the loop and the report use."""

import abc
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn

from prunus.errors import RecipeError, TrainingError
from prunus.tasks.imitation import distillation_loss
from prunus.tasks.outputs import Reading
from prunus.tasks.statistics import Statistics

Outputs = Mapping[str, Tensor]
Metrics = dict[str, float]
PerClass = dict[str, float | None]
Target = Any  # a tensor, or a dictionary of them by sub-task
Targets = Literal["masks", "labels", "boxes", "several"]


class Source(Protocol):
    """The data that every task needs."""

    @property
    def targets(self) -> Targets:
        """The kind of target: a class per pixel, a class per image, the objects in an image, or one per sub-task."""
        ...

    @property
    def class_names(self) -> Sequence[str]:
        """Names of the C classes, in the order of their numbers."""
        ...


class Metric(Protocol):
    """Counts over a set."""

    def update(self, output: Any, target: Target) -> None:
        """Count a batch."""
        ...

    def compute(self) -> tuple[Metrics, PerClass]:
        """Return the metrics, the main metric first, and the main metric per class."""
        ...


class BoundTask(abc.ABC):
    """A task for the classes of one data set."""

    main_metric: str  # higher is better
    reading: Reading = Reading()  # selects the tensors of an output
    decodes: bool = False  # whether `deployed` returns a module that decodes

    @abc.abstractmethod
    def loss(self, output: Any, target: Target) -> Tensor:
        """Return the loss of a batch, a scalar."""

    def training_loss(self, inputs: Tensor, output: Any, target: Target) -> Tensor:
        """Return the training loss: `loss` plus the weighted losses of the auxiliary heads.

        `inputs` is the batch that produced `output`.
        """
        total = self.loss(output, target)
        for weight, scores in self.reading.auxiliary_scores(output):
            total = total + weight * self.loss(scores, target)
        return total

    def scores(self, output: Any) -> Tensor:
        """Return the tensor of scores in a network's output, which distillation compares.

        Raises:
            TrainingError: the tensor of scores is ambiguous or missing.
        """
        return self.reading.scores(output)

    def imitation(self, output: Any, answer: Any, temperature: float) -> Tensor:
        """Return the distance of an output from a teacher's `answer`, a scalar that distillation adds to the loss."""
        return distillation_loss(self.scores(output), self.scores(answer), temperature)

    @abc.abstractmethod
    def predict(self, output: Any) -> Target:
        """Return the network's prediction, in the form of the targets."""

    @abc.abstractmethod
    def metrics(self) -> Metric:
        """Return an empty metric for a whole set."""

    @abc.abstractmethod
    def draw(self, answer: Target, size: tuple[int, int]) -> Tensor:
        """Return a picture of one target or prediction for an image of `size`: uint8 RGB [3, h, w]."""

    def weighted(self, weights: Tensor) -> "BoundTask":
        """Return this task with the loss of each class multiplied by its weight, float [C].

        Raises:
            RecipeError: the task does not support class weights.
        """
        raise RecipeError(f"{type(self).__name__} does not support class weights: remove protect.classes")

    def statistics(self) -> Statistics:
        """Return empty per-image counts, the basis of slices, intervals and calibration.

        Raises:
            TrainingError: the task does not implement them.
        """
        raise TrainingError(
            f"{type(self).__name__} does not implement per-image counts (`statistics`), so networks cannot be "
            "compared slice by slice: give the task one of prunus.tasks.statistics"
        )

    def disagreement(self, first: Any, second: Any) -> Tensor:
        """Return the disagreement of two networks' raw outputs on each image: [N], in [0, 1]."""
        apart: Tensor = (self.predict(first) != self.predict(second)).float()
        return apart.flatten(1).mean(1) if apart.dim() > 1 else apart

    def by_task(self) -> Mapping[str, "BoundTask"]:
        """Return the sub-tasks by name; {"": self} for a single task."""
        return {"": self}

    def part(self, name: str, output: Any, target: Target) -> tuple[Any, Target]:
        """Return the output and the target of the sub-task `name`."""
        return output, target

    def deployed(self, model: nn.Module) -> nn.Module:
        """Return the module to export if the file is to include the decoding.

        Raises:
            RecipeError: the task's decoding cannot be exported.
        """
        raise RecipeError(
            f"deploy.decode: {type(self).__name__} has no decoding that a file could hold; leave it out (null)"
        )

    def comparable(self, first: Outputs, second: Outputs) -> tuple[Outputs, Outputs]:
        """Return the named outputs of the network and of its file in a form to compare element by element."""
        return first, second

    def agreement(self, first: Outputs, second: Outputs) -> tuple[int, int] | None:
        """Return how many decisions of the network and its file agree, and their number; None: compare by argmax."""
        return None

    def draw_on(self, picture: Tensor, answer: Target) -> Tensor:
        """Return a picture of one target or prediction for the image `picture`, uint8 RGB [3, H, W]."""
        return self.draw(answer, (picture.shape[1], picture.shape[2]))


class Task(abc.ABC):
    """Settings of a task; a final subclass is a frozen dataclass.

    Do not mark a subclass `typing.final`: jsonargparse would omit its class name where it is a recipe's default.
    """

    targets: ClassVar[Targets]

    @abc.abstractmethod
    def bind(self, data: Any) -> BoundTask:
        """Return the task for the classes of `data`."""


def checked_target(target: object, form: str, dim: int) -> Tensor:
    """Return a batch's target of class numbers as int64, with `dim` dimensions; errors describe it as `form`.

    Raises:
        TrainingError: the target is not a tensor of integers with `dim` dimensions.
    """
    if not isinstance(target, Tensor):
        found = type(target).__name__
    else:
        found = f"{str(target.dtype).removeprefix('torch.')} {list(target.shape)}"
        whole = not (target.is_floating_point() or target.is_complex() or target.dtype == torch.bool)
        if whole and target.dim() == dim:
            return target.long()
    raise TrainingError(
        f"a batch's target is {found}, and must be {form} of the classes' numbers: let the data set give each image "
        "with such a target, and the DataLoader put them together"
    )


_KINDS = {"labels": "labels", "masks": "masks", "boxes": "boxes", "several": "a target for each sub-task"}
_TASKS = {
    "labels": "classification.Classification",
    "masks": "segmentation.Segmentation",
    "boxes": "detection.Detection",
    "several": "multi_task.MultiTask",
}


def check_targets(task: Task, data: Source) -> None:
    """Check the data's kind of target, and that its classes have unique names.

    Raises:
        RecipeError: the data do not fit the task; the message names both.
    """
    if data.targets != task.targets:
        raise RecipeError(
            f"{type(task).__name__} needs {_KINDS[task.targets]}, and {type(data).__name__} gives "
            f"{_KINDS[data.targets]}: set task.class_path to prunus.tasks.{_TASKS[data.targets]}, or choose other data"
        )
    names: Any = data.class_names
    if isinstance(names, str) or not isinstance(names, Sequence) or not names or not all(map(_is_name, names)):
        raise RecipeError(
            f"class_names of {type(data).__name__} is {names!r:.60}: give a tuple of names, one per class, none empty"
        )
    names = list(names)
    if twice := sorted({str(name) for name in names if names.count(name) > 1}):
        raise RecipeError(
            f"{type(data).__name__} gives several classes the name {', '.join(twice[:5])}, so their results could not "
            "be told apart: rename them"
        )


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and bool(name.strip())
