"""Several tasks for one network: a weighted sum of their losses, and the metrics of each.

The sub-task "detection" reads the entry "detection" of the network's output and of the target. Names are prefixed with
the sub-task's: "detection.map50" for a metric, "detection: car" for a class.
"""

import copy
import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Protocol, final

import torch
from torch import Tensor, nn

from prunus.errors import RecipeError, TrainingError
from prunus.tasks.entries import PartlyDecoding, entry, flat, same_decisions, stacked
from prunus.tasks.interface import BoundTask, Metric, Metrics, Outputs, PerClass, Source, Task, check_targets

MEAN = "mean"  # the default headline metric


class MultiTaskSource(Source, Protocol):
    """The data that the task needs."""

    def by_task(self) -> Mapping[str, Any]:
        """Return each sub-task's data, by the sub-task's name."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SubTask:
    """One of several tasks.

    Attributes:
        task: the settings of any other task.
        weight: of its loss in the sum.
        output: the entry of the network's output that it reads; None: the entry with the sub-task's name.
    """

    task: Task
    weight: float = 1.0
    output: str | None = None

    def __post_init__(self) -> None:
        if not 0 < self.weight < math.inf:
            raise RecipeError(f"task.tasks: a sub-task's weight is above zero, and finite, not {self.weight}")
        if isinstance(self.task, MultiTask):
            raise RecipeError("task.tasks: a sub-task is one task; name the tasks inside it beside the others")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MultiTask(Task):
    """Settings of the task.

    Attributes:
        tasks: the sub-tasks by name; the data must provide a target for each name.
        main: the sub-task whose main metric is the headline, which selects the best checkpoint; None: the mean of all
            main metrics.
    """

    targets: ClassVar[Literal["several"]] = "several"

    tasks: dict[str, SubTask]
    main: str | None = None

    def __post_init__(self) -> None:
        if not self.tasks:
            raise RecipeError("task.tasks names no sub-task: give each a name and its task")
        if self.main is not None and self.main not in self.tasks:
            raise RecipeError(f"task.main is {self.main!r}; the sub-tasks are {', '.join(self.tasks)}")
        for name in self.tasks:
            if not name.isidentifier():
                raise RecipeError(f"task.tasks: {name!r} is not a name for a sub-task: use letters, digits and _")
            if clash := next((other for other in self.tasks if name.startswith(f"{other}_")), None):
                raise RecipeError(
                    f"task.tasks: the outputs of {name} could not be distinguished from those of {clash} in a file: "
                    "rename one"
                )

    def bind(self, data: MultiTaskSource) -> "BoundMultiTask":
        """Return the task for the classes of `data`.

        Raises:
            RecipeError: the data lack a sub-task's target, or a target is of another kind.
        """
        check_targets(self, data)
        parts = data.by_task()
        if missing := [name for name in self.tasks if name not in parts]:
            raise RecipeError(
                f"task.tasks names the sub-task {', '.join(missing)}, and {type(data).__name__} gives targets for "
                f"{', '.join(parts)}: rename the sub-task, or choose data that give its target, too"
            )
        tasks = dict[str, BoundTask]()
        for name, sub in self.tasks.items():
            try:
                tasks[name] = sub.task.bind(parts[name])
            except RecipeError as error:
                raise RecipeError(f"task.tasks.{name}: {error}") from error
        numbers = {name: len(part.class_names) for name, part in parts.items()}
        return BoundMultiTask(tasks=tasks, settings=self, num_classes=numbers)


@final
class BoundMultiTask(BoundTask):
    """Bound sub-tasks; outputs are containers with an entry per sub-task, targets {sub-task: its target}."""

    decodes = True

    def __init__(self, *, tasks: Mapping[str, BoundTask], settings: MultiTask, num_classes: Mapping[str, int]) -> None:
        self.tasks, self.settings, self.num_classes = dict(tasks), settings, dict(num_classes)
        main = settings.main
        self.main_metric = MEAN if main is None else f"{main}.{self.tasks[main].main_metric}"

    def by_task(self) -> Mapping[str, BoundTask]:
        """Return the sub-tasks by their names."""
        return self.tasks

    def part(self, name: str, output: Any, target: Any) -> tuple[Any, Any]:
        """Return the output and the target of the sub-task `name`.

        Raises:
            TrainingError: the target or the output has no such entry.
        """
        if not isinstance(target, Mapping) or name not in target:
            found = f"has {', '.join(map(str, target))}" if isinstance(target, Mapping) else "is one tensor"
            raise TrainingError(
                f"a batch's target {found}, and the sub-task {name} needs an entry {name!r}: let the data set give "
                "each image with {sub-task: target}"
            )
        return self.output(name, output), target[name]

    def output(self, name: str, output: Any) -> Any:
        """Return the sub-task's part of a network's output; see `entry`."""
        return entry(output, self.key(name), name)

    def key(self, name: str) -> str:
        """Return the name of the entry that the sub-task `name` reads."""
        return self.settings.tasks[name].output or name

    def loss(self, output: Any, target: Any) -> Tensor:
        """Return sum_t weight_t loss_t over the sub-tasks t."""
        losses = {name: task.loss(*self.part(name, output, target)) for name, task in self.tasks.items()}
        return self._weighted_sum(losses)

    def training_loss(self, inputs: Tensor, output: Any, target: Any) -> Tensor:
        """Return sum_t weight_t training_loss_t over the sub-tasks t."""
        return self._weighted_sum(
            {name: task.training_loss(inputs, *self.part(name, output, target)) for name, task in self.tasks.items()}
        )

    def imitation(self, output: Any, answer: Any, temperature: float) -> Tensor:
        """Return sum_t weight_t imitation_t over the sub-tasks t."""
        return self._weighted_sum(
            {
                name: task.imitation(self.output(name, output), self.output(name, answer), temperature)
                for name, task in self.tasks.items()
            }
        )

    def predict(self, output: Any) -> dict[str, Any]:
        """Return each sub-task's prediction."""
        return {name: task.predict(self.output(name, output)) for name, task in self.tasks.items()}

    def metrics(self) -> "MultiTaskMetrics":
        """Return an empty metric for a whole set."""
        return MultiTaskMetrics(self)

    def weighted(self, weights: Tensor) -> "BoundMultiTask":
        """Return this task with the loss of each class multiplied by its weight, float [C] over all sub-tasks' classes.

        Raises:
            RecipeError: a sub-task with a weight other than 1 does not support class weights.
        """
        task = copy.copy(self)
        own = dict(zip(self.num_classes, torch.split(weights, list(self.num_classes.values())), strict=True))
        task.tasks = {
            name: sub.weighted(own[name]) if bool((own[name] != 1).any()) else sub for name, sub in self.tasks.items()
        }
        return task

    def disagreement(self, first: Any, second: Any) -> Tensor:
        """Return the mean disagreement over the sub-tasks on each image: [N], in [0, 1]."""
        found = [
            task.disagreement(self.output(name, first), self.output(name, second)).cpu()
            for name, task in self.tasks.items()
        ]
        return torch.stack(found).mean(0)

    def deployed(self, model: nn.Module) -> nn.Module:
        """Return the network with the decoding of the sub-tasks that decode.

        Raises:
            RecipeError: no sub-task decodes, or a decoding cannot be exported.
        """
        decoders = {self.key(name): task.deployed(nn.Identity()) for name, task in self.tasks.items() if task.decodes}
        return PartlyDecoding(model, decoders) if decoders else super().deployed(model)

    def comparable(self, first: Outputs, second: Outputs) -> tuple[Outputs, Outputs]:
        """Return the outputs, each sub-task's in the form in which it compares them."""
        found: tuple[dict[str, Tensor], dict[str, Tensor]] = {}, {}
        for name, task in self.tasks.items():
            key = self.key(name)
            for whole, own in zip(found, task.comparable(flat(first, key), flat(second, key)), strict=True):
                whole |= {key if key in first else f"{key}_{inner}": value for inner, value in own.items()}
        return found

    def agreement(self, first: Outputs, second: Outputs) -> tuple[int, int]:
        """Return how many decisions of all sub-tasks agree, and their number; by default decisions are by argmax."""
        pairs = {name: (flat(first, self.key(name)), flat(second, self.key(name))) for name in self.tasks}
        found = [task.agreement(*pairs[name]) or same_decisions(*pairs[name]) for name, task in self.tasks.items()]
        return sum(same for same, _ in found), sum(number for _, number in found)

    def draw(self, answer: Mapping[str, Any], size: tuple[int, int]) -> Tensor:
        """Return the pictures of the sub-tasks' answers, stacked vertically, uint8 RGB [3, h, w]."""
        return stacked([task.draw(answer[name], size) for name, task in self.tasks.items()])

    def draw_on(self, picture: Tensor, answer: Mapping[str, Any]) -> Tensor:
        """Return the sub-tasks' answers drawn for one image, stacked vertically, uint8 RGB [3, h, w]."""
        return stacked([task.draw_on(picture, answer[name]) for name, task in self.tasks.items()])

    def _weighted_sum(self, values: Mapping[str, Tensor]) -> Tensor:
        total = torch.stack([self.settings.tasks[name].weight * value.float() for name, value in values.items()])
        return total.sum()


class MultiTaskMetrics:
    """The metrics of the sub-tasks side by side."""

    def __init__(self, task: BoundMultiTask) -> None:
        self._task = task
        self._metrics: dict[str, Metric] = {name: sub.metrics() for name, sub in task.tasks.items()}

    def update(self, output: Any, target: Any) -> None:
        """Count a batch."""
        for name, metric in self._metrics.items():
            metric.update(*self._task.part(name, output, target))

    def compute(self) -> tuple[Metrics, PerClass]:
        """Return the headline metric and the metrics of each sub-task, and each main metric by class."""
        found, per_class, main = Metrics(), PerClass(), list[float]()
        for name, metric in self._metrics.items():
            metrics, classes = metric.compute()
            main.append(metrics[self._task.tasks[name].main_metric])
            found |= {f"{name}.{key}": value for key, value in metrics.items()}
            per_class |= {f"{name}: {label}": value for label, value in classes.items()}
        found[MEAN] = math.fsum(main) / len(main)
        headline = self._task.main_metric
        return {headline: found[headline], **found}, per_class
