"""Classification: cross-entropy with label smoothing, top-1 and top-5 accuracy over a whole set."""

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, final

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional

from prunus import compat  # noqa: F401 - torchmetrics imports torchvision, which must be prepared first
from prunus.errors import RecipeError, TrainingError
from prunus.tasks.interface import (
    BoundTask,
    Metrics,
    PerClass,
    Source,
    Task,
    check_targets,
    checked_target,
)
from prunus.tasks.outputs import Reading
from prunus.tasks.statistics import LabelStatistics

from torchmetrics.classification import MulticlassAccuracy, MulticlassStatScores  # isort: skip - after compat

TOP = 5
CARD = (96, 192)  # (height, width) of a class name drawn as a picture


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classification(Task):
    """Settings of the task.

    Attributes:
        label_smoothing: e; the training target is (1 - e) one-hot + e / C (Szegedy et al. 2016).
        output: name of the scores, if the network returns several tensors; see `Reading`.
        auxiliary: loss weights of auxiliary heads by the names of their scores: {aux_logits1: 0.3}.
    """

    targets: ClassVar[Literal["labels"]] = "labels"

    label_smoothing: float = 0.0
    output: str | None = None
    auxiliary: dict[str, float] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        Reading(output=self.output, auxiliary=self.auxiliary)
        if not 0 <= self.label_smoothing < 1:
            raise RecipeError(f"task.label_smoothing lies in [0, 1), it is not {self.label_smoothing}")

    def bind(self, data: Source) -> "BoundClassification":
        """Return the task for the classes of `data`.

        Raises:
            RecipeError: the data's targets are not labels, or class names repeat.
        """
        check_targets(self, data)
        return BoundClassification(
            class_names=data.class_names,
            label_smoothing=self.label_smoothing,
            reading=Reading(output=self.output, auxiliary=self.auxiliary),
        )


@final
class BoundClassification(BoundTask):
    """The task for C known classes: scores are [N, C], targets int64 [N]."""

    main_metric = "top1"

    def __init__(
        self, *, class_names: Sequence[str], label_smoothing: float = 0.0, reading: Reading | None = None
    ) -> None:
        self.class_names, self.label_smoothing = tuple(class_names), label_smoothing
        self.class_weights: Tensor | None = None
        self.reading = reading or Reading()

    def loss(self, output: Any, target: Tensor) -> Tensor:
        """Return the mean cross-entropy of the batch.

        Raises:
            TrainingError: the output does not fit the classes or target.
        """
        scores, target = self.checked(output, target)
        weights = None if self.class_weights is None else self.class_weights.to(scores.device)
        return functional.cross_entropy(scores.float(), target, weights, label_smoothing=self.label_smoothing)

    def predict(self, output: Any) -> Tensor:
        """Return the class of each image: scores [N, C] to int64 [N]."""
        return self.scores(output).argmax(dim=1)

    def metrics(self) -> "ClassificationMetrics":
        """Return an empty metric for a whole set."""
        return ClassificationMetrics(self)

    def weighted(self, weights: Tensor) -> "BoundClassification":
        """Return this task with the cross-entropy of each class multiplied by its weight, float [C]."""
        task = copy.copy(self)
        task.class_weights = weights if self.class_weights is None else self.class_weights * weights
        return task

    def statistics(self) -> LabelStatistics:
        """Return empty per-image counts."""
        return LabelStatistics(self.class_names, self.scores)

    def draw(self, answer: Tensor, size: tuple[int, int]) -> Tensor:
        """Return the class's name, black on white, [3, 96, 192], legible even beside a small image."""
        picture = Image.new("RGB", CARD[::-1], "white")
        name = self.class_names[int(answer)]
        words, lines = name.split(), [""]
        for word in words:
            fits = len(lines[-1]) + len(word) < 18
            lines = [*lines[:-1], f"{lines[-1]} {word}".strip()] if fits else [*lines, word]
        font = ImageFont.load_default(size=18)
        ImageDraw.Draw(picture).multiline_text((6, 6), "\n".join(lines), fill="black", font=font)
        return torch.from_numpy(np.array(picture)).movedim(-1, 0)

    def checked(self, output: Any, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return scores [N, C] and the target as int64 [N]; refuse shapes that do not fit the classes or each other."""
        scores, target = self.scores(output), checked_target(target, "whole numbers [N]", 1)
        if scores.dim() != 2 or list(scores.shape) != [target.shape[0], len(self.class_names)]:
            raise TrainingError(
                f"the network's output has shape {list(scores.shape)} for labels {list(target.shape)}; classification "
                f"of {len(self.class_names)} classes needs [{target.shape[0]}, {len(self.class_names)}]"
            )
        return scores, target


class ClassificationMetrics:
    """Counts top-1 and top-5 hits over a set; with fewer than five classes, top-5 covers all of them.

    Under distributed training torchmetrics sums the counts of all processes.
    """

    def __init__(self, task: BoundClassification) -> None:
        self._task, num = task, len(task.class_names)
        self._classes = MulticlassStatScores(num_classes=num, average="none", validate_args=False)
        self._top5 = MulticlassAccuracy(num_classes=num, top_k=min(TOP, num), average="micro", validate_args=False)

    def update(self, output: Any, target: Tensor) -> None:
        """Count a batch: scores [N, C] against labels [N]."""
        scores, target = self._task.checked(output, target)
        for count in (self._classes, self._top5):
            count.to(scores.device).update(scores.float(), target)

    def compute(self) -> tuple[Metrics, PerClass]:
        """Return ({"top1", "top5"}, accuracy by class name), all in [0, 1]; None for a class without images.

        Raises:
            TrainingError: no image was counted.
        """
        if not self._classes.update_called:
            raise TrainingError("the metrics have seen no image: check that the split is not empty")
        scores = self._classes.compute().double()
        hits, seen = scores[:, 0], scores[:, 4]  # of each class, over all processes
        pairs = zip(self._task.class_names, hits.tolist(), seen.tolist(), strict=True)
        named = {name: hit / images if images else None for name, hit, images in pairs}
        return {"top1": float(hits.sum() / seen.sum()), "top5": float(self._top5.compute())}, named
