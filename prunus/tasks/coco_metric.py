"""COCO's mean average precision, by torchmetrics and faster-coco-eval."""

import dataclasses
import importlib.util
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from prunus import compat  # noqa: F401 - torchmetrics imports torchvision, which must be prepared first
from prunus.boxes import EVERY, Objects, areas
from prunus.errors import RecipeError, TrainingError
from prunus.tasks.box_metric import BoxCounts, BoxMetric
from prunus.tasks.interface import Metrics, PerClass

NAMES = {
    "map": "map",
    "map50": "map_50",
    "map75": "map_75",
    "map_small": "map_small",
    "map_medium": "map_medium",
    "map_large": "map_large",
    "recall": "mar_100",
}  # Prunus's name -> torchmetrics' name


@dataclasses.dataclass(frozen=True, kw_only=True)
class COCOMetric(BoxMetric):
    """The mean of the average precisions over classes and IoU thresholds 0.5, 0.55, ..., 0.95 (Lin et al. 2014).

    Boxes are compared in pixels of the image files, so that small (below 32 x 32), medium and large (from 96 x 96) have
    COCO's meaning. Ignored objects are treated as crowds.

    Attributes:
        main: the metric that is shown first and selects the best checkpoint: "map", "map50" or "map75".
    """

    main: str = "map"

    def __post_init__(self) -> None:
        if self.main not in ("map", "map50", "map75"):
            raise RecipeError(f"task.metric.main is one of map, map50, map75, not {self.main!r}")

    def bind(self, class_names: Sequence[str]) -> "COCOCounts":
        """Return an empty metric.

        Raises:
            RecipeError: faster-coco-eval is not installed.
        """
        if importlib.util.find_spec("faster_coco_eval") is None:
            raise RecipeError("COCO's metric needs faster-coco-eval: pip install 'prunus[detection]'")
        return COCOCounts(class_names, self.main)


COCO = COCOMetric()


class COCOCounts(BoxCounts):
    """The detections and objects of a set so far."""

    def __init__(self, class_names: Sequence[str], main: str) -> None:
        from torchmetrics.detection import MeanAveragePrecision

        self.class_names, self.main = tuple(class_names), main
        self._map = MeanAveragePrecision(backend="faster_coco_eval", class_metrics=True)
        self._map.warn_on_many_detections = False

    def update(self, detections: Tensor, objects: Sequence[Objects]) -> None:
        """Count a batch."""
        found = [_found(rows[rows[:, 5] > 0], each.scale) for rows, each in zip(detections.cpu(), objects, strict=True)]
        self._map.update(found, [_truth(each, len(self.class_names)) for each in objects])

    def compute(self) -> tuple[Metrics, PerClass]:
        """Return ({"map", "map50", ...}, average precision by class name); None for a class without objects.

        Raises:
            TrainingError: no object was seen.
        """
        values = {key: value for key, value in self._map.compute().items() if isinstance(value, Tensor)}
        metrics = {name: float(values[key]) for name, key in NAMES.items()}
        if not metrics["map"] >= 0:
            raise TrainingError("the metrics have seen no object: check that the split has boxes of its classes")
        metrics = {self.main: metrics[self.main]} | {name: value for name, value in metrics.items() if value >= 0}
        classes, own = values["classes"].reshape(-1).tolist(), values["map_per_class"].reshape(-1).tolist()
        known = dict(zip(classes, own, strict=True))
        each = [known.get(label, -1.0) for label in range(len(self.class_names))]
        return metrics, {
            name: value if value >= 0 and math.isfinite(value) else None
            for name, value in zip(self.class_names, each, strict=True)
        }


def _found(rows: Tensor, scale: float) -> dict[str, Any]:
    return {"boxes": rows[:, 1:5] / scale, "scores": rows[:, 5], "labels": rows[:, 0].long()}


def _truth(objects: Objects, num_classes: int) -> dict[str, Any]:
    """Return an image's objects; a region without a class is a crowd of every class."""
    regions, own = objects.chosen(objects.labels == EVERY), objects.chosen(objects.labels != EVERY)
    boxes = torch.cat([own.boxes, regions.boxes.repeat(num_classes, 1)]).cpu() / objects.scale
    every = torch.arange(num_classes).repeat_interleave(len(regions))
    return {
        "boxes": boxes,
        "labels": torch.cat([own.labels.cpu(), every]),
        "iscrowd": torch.cat([own.ignored.cpu().long(), torch.ones_like(every)]),
        "area": areas(boxes),
    }
