"""Object detection: the loss and decoding of the heads, and the metric of COCO or KITTI."""

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Protocol, TypeGuard, final

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn

from prunus.boxes import COLUMNS, DETECTION_COLUMNS, Objects
from prunus.errors import RecipeError, TrainingError
from prunus.modules.tree import on_device
from prunus.tasks.box_metric import BoxCounts, BoxMetric
from prunus.tasks.box_statistics import BoxStatistics
from prunus.tasks.centre import CENTRE
from prunus.tasks.coco_metric import COCO
from prunus.tasks.decoding import Decoding, agreement, aligned, unlike
from prunus.tasks.heads import BoundHeads, Heads
from prunus.tasks.interface import BoundTask, Metrics, Outputs, PerClass, Source, Task, check_targets


class DetectionSource(Source, Protocol):
    """The data that the task needs."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of all images, in pixels."""

    @property
    def palette(self) -> Sequence[tuple[int, int, int]]:
        """RGB colours, 0 to 255, assigned to the classes in turn."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Detection(Task):
    """Settings of the task.

    Attributes:
        heads: turn the network's raw output into a loss and into detections.
        metric: the metric over a whole set.
        most: number of highest-scoring detections per image that are evaluated.
        shown: score from which a detection is drawn.
    """

    targets: ClassVar[Literal["boxes"]] = "boxes"

    heads: Heads = CENTRE
    metric: BoxMetric = COCO
    most: int = 100
    shown: float = 0.3

    def __post_init__(self) -> None:
        if self.most < 1 or not 0 < self.shown < 1:
            raise RecipeError(f"task.most {self.most} is at least 1, task.shown {self.shown} lies between 0 and 1")

    def bind(self, data: DetectionSource) -> "BoundDetection":
        """Return the task for the classes of `data`.

        Raises:
            RecipeError: the data's targets are not boxes, or the metric's library is not installed.
        """
        check_targets(self, data)
        self.metric.bind(data.class_names)  # fails now, not after hours of training
        return BoundDetection(
            class_names=data.class_names,
            heads=self.heads.bind(len(data.class_names), data.size),
            settings=self,
            palette=data.palette,
        )


@final
class BoundDetection(BoundTask):
    """The task for C known classes: outputs are the heads' raw output, targets rows of objects [N, M, 10]."""

    decodes = True

    def __init__(
        self,
        *,
        class_names: Sequence[str],
        heads: BoundHeads,
        settings: Detection,
        palette: Sequence[tuple[int, int, int]] = (),
    ) -> None:
        self.class_names, self.heads, self.settings = tuple(class_names), heads, settings
        self.palette = tuple(palette) or ((230, 60, 50),)
        self.main_metric = settings.metric.main

    def loss(self, output: Any, target: Tensor) -> Tensor:
        """Return the heads' loss.

        Raises:
            TrainingError: the output does not fit the heads, or the target is not rows of objects.
        """
        return self.heads.loss(output, objects_of(target))

    def imitation(self, output: Any, answer: Any, temperature: float) -> Tensor:
        """Return the heads' own distance between two outputs, which ignores `temperature`."""
        return self.heads.imitation(output, answer)

    def predict(self, output: Any) -> Tensor:
        """Return each image's best detections, float32 [N, most, 6] (`prunus.boxes`); decoded output is unchanged."""
        return output if _is_rows(output) else self.heads.decode(output, self.settings.most)

    def metrics(self) -> "DetectionMetrics":
        """Return an empty metric for a whole set."""
        return DetectionMetrics(self, self.settings.metric.bind(self.class_names))

    def weighted(self, weights: Tensor) -> "BoundDetection":
        """Return this task with the loss of each class multiplied by its weight, float [C].

        Raises:
            RecipeError: the heads' loss does not support class weights.
        """
        task = copy.copy(self)
        task.heads = self.heads.weighted(weights)
        return task

    def statistics(self) -> BoxStatistics:
        """Return empty per-image counts."""
        thresholds = [self.settings.metric.overlap(name) for name in self.class_names]
        return BoxStatistics(self.class_names, self.predict, objects_of, thresholds)

    def disagreement(self, first: Any, second: Any) -> Tensor:
        """Return, per image, the share of shown detections that the other network lacks: [N]."""
        pairs = zip(self.predict(first).cpu(), self.predict(second).cpu(), strict=True)
        return torch.tensor([unlike(rows, others, self.settings.shown) for rows, others in pairs])

    def deployed(self, model: nn.Module) -> nn.Module:
        """Return the network with its decoding; the output is detections [N, most, 6].

        Raises:
            RecipeError: the decoding needs non-maximum suppression, which is not exported.
        """
        if self.heads.suppresses:
            raise RecipeError(
                f"deploy.decode: {type(self.heads).__name__} needs non-maximum suppression, which a file does not "
                "hold: set deploy.decode: false and decode outside, with task.predict"
            )
        return Decoding(model, self.predict)

    def comparable(self, first: Outputs, second: Outputs) -> tuple[Outputs, Outputs]:
        """Return decoded outputs in the same order, and raw outputs unchanged."""
        if not _is_decoded(first):
            return first, second
        own, others = aligned(first["output"], second["output"])
        return {"output": own}, {"output": others}

    def agreement(self, first: Outputs, second: Outputs) -> tuple[int, int]:
        """Return how many of the shown detections agree, and their number."""
        rows = [each["output"] if _is_decoded(each) else self.predict(each) for each in (first, second)]
        return agreement(rows[0], rows[1], self.settings.shown)

    def draw(self, answer: Tensor, size: tuple[int, int]) -> Tensor:
        """Return the boxes on white, uint8 [3, h, w]."""
        return self.draw_on(torch.full((3, *size), 255, dtype=torch.uint8), answer)

    def draw_on(self, picture: Tensor, answer: Tensor) -> Tensor:
        """Return the picture with the boxes of an answer, objects [M, 10] or detections [K, 6].

        Ignored objects are grey and have no name.
        """
        image = Image.fromarray(picture.movedim(0, -1).contiguous().numpy())
        pen = ImageDraw.Draw(image)
        for box, label, text in self._shown(answer.cpu()):
            colour = (160, 160, 160) if label is None else self.palette[label % len(self.palette)]
            pen.rectangle([box[0], box[1], max(box[0], box[2] - 1), max(box[1], box[3] - 1)], outline=colour, width=2)
            if text:
                place = (box[0] + 2, box[1] - 11 if box[1] > 11 else box[1] + 1)
                pen.rectangle(pen.textbbox(place, text), fill=colour)
                pen.text(place, text, fill="white")
        return torch.from_numpy(np.array(image)).movedim(-1, 0)

    def _shown(self, answer: Tensor) -> list[tuple[list[float], int | None, str]]:
        """Return the boxes to draw, each with its class (None: ignored) and its caption."""
        if answer.shape[-1] == len(COLUMNS):
            objects = Objects.from_rows(answer)
            labels = [
                None if skip else label for label, skip in zip(objects.labels.tolist(), objects.ignored, strict=True)
            ]
            texts = ["" if label is None else self.class_names[label] for label in labels]
            return list(zip(objects.boxes.tolist(), labels, texts, strict=True))
        rows = answer[answer[:, 5] >= self.settings.shown].tolist()
        return [(row[1:5], int(row[0]), f"{self.class_names[int(row[0])]} {row[5]:.2f}") for row in rows]


def _is_decoded(outputs: Outputs) -> bool:
    return set(outputs) == {"output"} and _is_rows(outputs["output"])


def _is_rows(output: Any) -> TypeGuard[Tensor]:
    return isinstance(output, Tensor) and output.dim() == 3 and output.shape[2] == len(DETECTION_COLUMNS)


class DetectionMetrics:
    """Decodes outputs and passes them to a metric's counts."""

    def __init__(self, task: BoundDetection, counts: BoxCounts) -> None:
        self._task, self._counts = task, counts

    def update(self, output: Any, target: Tensor) -> None:
        """Count a batch: the raw output against rows of objects [N, M, 10]."""
        self._counts.update(self._task.predict(output).cpu(), objects_of(on_device(target, torch.device("cpu"))))

    def compute(self) -> tuple[Metrics, PerClass]:
        """Return the metrics, the main metric first, and the main metric per class."""
        return self._counts.compute()


def objects_of(target: object) -> list[Objects]:
    """Return the objects of each image of a batch.

    Raises:
        TrainingError: the target is not rows of objects.
    """
    fits = isinstance(target, Tensor) and target.is_floating_point() and target.dim() == 3
    if not isinstance(target, Tensor) or not fits or target.shape[2] != len(COLUMNS):
        found = f"{target.dtype} {list(target.shape)}" if isinstance(target, Tensor) else type(target).__name__
        raise TrainingError(
            f"a batch's target is {found.removeprefix('torch.')}, and must be rows of objects, float32 [N, M, "
            f"{len(COLUMNS)}], as prunus.boxes.Objects.rows gives them"
        )
    return [Objects.from_rows(rows) for rows in target]
