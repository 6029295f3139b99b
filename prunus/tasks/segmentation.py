"""Semantic segmentation: class-weighted cross-entropy, intersection over union over a whole set."""

import copy
import dataclasses
import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Protocol, final

import torch
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
from prunus.tasks.statistics import MaskStatistics

from torchmetrics.classification import MulticlassConfusionMatrix  # isort: skip - after compat


class SegmentationSource(Source, Protocol):
    """The data that the task needs."""

    @property
    def palette(self) -> Sequence[tuple[int, int, int]]:
        """One RGB colour per class, 0 to 255."""

    @property
    def ignore_index(self) -> int:
        """The mask value of pixels without a class (void)."""

    def class_frequencies(self) -> Tensor:
        """Return the share of each class in the non-void pixels of the training masks: [C], sum 1."""


def class_weights(frequencies: Tensor, offset: float) -> Tensor:
    """Return w_c = 1 / ln(offset + p_c), which favours rare classes: [C] to [C].

    Paszke et al. 2016 (ENet), section 5.2; ERFNet uses offset 1.2 for the encoder stage, and 1.10 after it.

    Raises:
        RecipeError: an offset of 1 or less, where the weight of an absent class is infinite or negative.
    """
    if not offset > 1:
        raise RecipeError(
            f"class_weight_offset must be above 1, not {offset}: the weight of a class is 1 / ln(offset + "
            "its frequency); usual are 1.02 to 1.2, and null gives all classes the same weight"
        )
    return 1 / torch.log(offset + frequencies)


def intersection_over_union(confusion: Tensor) -> list[float | None]:
    """Return tp / (tp + fp + fn) of each class, from pixel counts [C truth, C prediction].

    None for a zero denominator: the class occurs neither in the truth nor in the predictions. Everingham et al. 2010
    (Pascal VOC), section 4.4; the counts cover a whole set and are never averaged over images.
    """
    true_positive = confusion.diagonal()
    union = confusion.sum(0) + confusion.sum(1) - true_positive
    return [hit / total if total else None for hit, total in zip(true_positive.tolist(), union.tolist(), strict=True)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Segmentation(Task):
    """Settings of the task.

    Attributes:
        class_weight_offset: k of the class weights 1 / ln(k + p_c); None: no weights.
        output: name of the scores ("out"), if the network returns several tensors; see `Reading`.
        auxiliary: loss weights of auxiliary heads by the names of their scores: {aux: 0.4}.
    """

    targets: ClassVar[Literal["masks"]] = "masks"

    class_weight_offset: float | None = 1.10
    output: str | None = None
    auxiliary: dict[str, float] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        Reading(output=self.output, auxiliary=self.auxiliary)

    def bind(self, data: SegmentationSource) -> "BoundSegmentation":
        """Return the task for the classes of `data`.

        Raises:
            RecipeError: `class_weight_offset` is not above 1, or the data's targets are not masks with unique names.
        """
        check_targets(self, data)
        weights = None
        if self.class_weight_offset is not None:
            weights = class_weights(data.class_frequencies(), self.class_weight_offset)
        return BoundSegmentation(
            class_names=data.class_names,
            ignore_index=data.ignore_index,
            class_weights=weights,
            palette=data.palette,
            reading=Reading(output=self.output, auxiliary=self.auxiliary),
        )


@final
class BoundSegmentation(BoundTask):
    """The task for C known classes.

    Outputs are scores [N, C, h, w], targets int64 masks [N, H, W]. For a network of lower output resolution
    (an encoder trained alone, at 1/8), the mask is downsampled to it by nearest pixel.
    """

    main_metric = "miou"

    def __init__(
        self,
        *,
        class_names: Sequence[str],
        ignore_index: int = 255,
        class_weights: Tensor | None = None,
        palette: Sequence[tuple[int, int, int]] = (),
        reading: Reading | None = None,
    ) -> None:
        self.class_names, self.palette = tuple(class_names), tuple(palette)
        self.ignore_index, self.reading = ignore_index, reading or Reading()
        self.class_weights = torch.ones(len(self.class_names)) if class_weights is None else class_weights

    def loss(self, output: Any, target: Tensor) -> Tensor:
        """Return sum_i w[y_i] ce_i / sum_i w[y_i] over the pixels i that are not void; 0 if all are void.

        Raises:
            TrainingError: the output does not fit the classes or target.
        """
        scores, target = self._matched(output, target)
        weights = self.class_weights.to(scores.device)
        scores = scores.float()  # half precision would lose the small terms of a long sum
        total = functional.cross_entropy(scores, target, weights, ignore_index=self.ignore_index, reduction="sum")
        valid = target != self.ignore_index
        normaliser = (weights[target.where(valid, 0)] * valid).sum()
        return total / normaliser.clamp(min=torch.finfo(normaliser.dtype).tiny)

    def predict(self, output: Any) -> Tensor:
        """Return the class of each pixel: scores [N, C, h, w] to int64 [N, h, w]."""
        return self.scores(output).argmax(dim=1)

    def weighted(self, weights: Tensor) -> "BoundSegmentation":
        """Return this task with the weight of each class multiplied by `weights`, float [C]."""
        task = copy.copy(self)
        task.class_weights = self.class_weights * weights
        return task

    def statistics(self) -> MaskStatistics:
        """Return empty per-image counts."""
        return MaskStatistics(self.class_names, self.ignore_index, self._matched)

    def draw(self, answer: Tensor, size: tuple[int, int]) -> Tensor:
        """Return a mask [h, w] in the colours of its classes, uint8 [3, h, w]; void is black."""
        colours = torch.zeros(256, 3, dtype=torch.uint8)
        colours[: len(self.palette)] = torch.tensor(self.palette, dtype=torch.uint8).reshape(-1, 3)
        return colours[answer.cpu().to(torch.int64)].movedim(-1, 0)

    def metrics(self) -> "SegmentationMetrics":
        """Return an empty metric for a whole set."""
        return SegmentationMetrics(self)

    def _matched(self, output: Any, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return the scores, and the target at the scores' resolution."""
        scores, target = self.scores(output), checked_target(target, "whole numbers [N, H, W]", 3)
        num_classes = len(self.class_names)
        if scores.dim() != 4 or scores.shape[1] != num_classes or scores.shape[0] != target.shape[0]:
            raise TrainingError(
                f"the network's output has shape {list(scores.shape)} for masks {list(target.shape)}; "
                f"segmentation of {num_classes} classes needs [{target.shape[0]}, {num_classes}, h, w]"
            )
        if scores.shape[2:] == target.shape[1:]:
            return scores, target
        factor = target.shape[1] // max(1, scores.shape[2])
        if [side * factor for side in scores.shape[2:]] != list(target.shape[1:]):
            raise TrainingError(
                f"the network's output is {scores.shape[2]} x {scores.shape[3]} and the mask "
                f"{target.shape[1]} x {target.shape[2]}: they must be equal, or the mask a whole "
                "multiple of the output"
            )
        return scores, target[:, factor // 2 :: factor, factor // 2 :: factor].contiguous()


class SegmentationMetrics:
    """Counts pixels over a set: a confusion matrix [C truth, C prediction] without void.

    Under distributed training torchmetrics sums the counts of all processes.
    """

    def __init__(self, task: BoundSegmentation) -> None:
        self._task = task
        self._confusion = MulticlassConfusionMatrix(
            num_classes=len(task.class_names), ignore_index=task.ignore_index, validate_args=False
        )

    def update(self, output: Any, target: Tensor) -> None:
        """Count a batch: scores [N, C, h, w] against masks [N, H, W]."""
        scores, target = self._task._matched(output, target)
        self._confusion.to(scores.device).update(self._task.predict(scores), target)

    def compute(self) -> tuple[Metrics, PerClass]:
        """Return ({"miou", "pixel_accuracy"}, IoU by class name), all in [0, 1].

        A class that occurs neither in the truth nor in the predictions has the IoU None and is excluded from the mean.
        So is a class that is `ignore_index`: predictions on its pixels are not counted, and a prediction of it
        elsewhere is a missed pixel of the true class.

        Raises:
            TrainingError: no pixel was counted.
        """
        confusion = self._confusion.compute().cpu()
        counted = int(confusion.sum())
        if not counted:
            raise TrainingError(
                "the metrics have seen no pixel that is not void; check that the split has images and that "
                f"its masks hold classes, not only the void value {self._task.ignore_index}"
            )
        per_class = intersection_over_union(confusion)
        if 0 <= self._task.ignore_index < len(per_class):
            per_class[self._task.ignore_index] = None
        defined = [value for value in per_class if value is not None]  # not empty, since at least one pixel was counted
        metrics = {
            self._task.main_metric: math.fsum(defined) / len(defined),
            "pixel_accuracy": int(confusion.diagonal().sum()) / counted,
        }
        return metrics, dict(zip(self._task.class_names, per_class, strict=True))
