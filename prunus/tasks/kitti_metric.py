"""KITTI's average precision at 40 recall positions, for easy, moderate and hard objects."""

import dataclasses
import math
from collections.abc import Sequence
from typing import ClassVar, final

import numpy as np
import torch
from torch import Tensor

from prunus import compat  # noqa: F401 - torchmetrics imports torchvision, which must be prepared first
from prunus.boxes import Objects
from prunus.errors import TrainingError
from prunus.tasks.box_metric import BoxCounts, BoxMetric
from prunus.tasks.interface import Metrics, PerClass
from prunus.tasks.matching import average_precision, match

from torchmetrics import Metric  # isort: skip - after compat

RECALLS = np.arange(1, 41) / 40
OVERLAPS = {"Car": 0.7}  # IoU above which a detection is correct; 0.5 for the other classes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Difficulty:
    """Limits of the objects that count: least height in pixels of the image file, largest occlusion and truncation."""

    height: float
    occlusion: float
    truncation: float

    def apply(self, objects: Objects) -> Objects:
        """Return the objects, with those outside the limits ignored."""
        height = (objects.boxes[:, 3] - objects.boxes[:, 1]) / objects.scale
        harder = (height < self.height) | (objects.occlusion > self.occlusion) | (objects.truncation > self.truncation)
        return dataclasses.replace(objects, ignored=objects.ignored | harder)


DIFFICULTIES = {
    "moderate": Difficulty(height=25, occlusion=1, truncation=0.3),
    "easy": Difficulty(height=40, occlusion=0, truncation=0.15),
    "hard": Difficulty(height=25, occlusion=2, truncation=0.5),
}


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class KITTIMetric(BoxMetric):
    """KITTI's metric (Geiger et al. 2012): the mean precision at the recalls 1/40, 2/40, ..., 1, averaged over classes.

    A detection is correct with an IoU above 0.7 for cars, and above 0.5 for other classes. At each difficulty, objects
    that are too low, occluded or truncated are ignored, as are detections that are too low or in a `DontCare` region.

    The precision is that of the whole curve (Simonelli et al., ICCV 2019, section 5). The development kit first samples
    the curve at 41 scores, and rematches detections and objects at each. On thousands of objects the two differ little;
    on fewer than 40 objects the kit's value cannot approach 1.
    """

    main: ClassVar[str] = "ap40_moderate"  # type: ignore[misc]

    def overlap(self, name: str) -> float:
        """Return KITTI's IoU threshold of the class."""
        return OVERLAPS.get(name, 0.5)

    def bind(self, class_names: Sequence[str]) -> "KITTICounts":
        """Return an empty metric."""
        return KITTICounts(class_names, [self.overlap(name) for name in class_names])


class KITTICounts(BoxCounts):
    """The outcomes of the detections so far, and the number of objects, by class and difficulty."""

    def __init__(self, class_names: Sequence[str], overlaps: Sequence[float]) -> None:
        self.class_names, self.overlaps = tuple(class_names), overlaps
        self._state = _State(len(self.class_names))

    def update(self, detections: Tensor, objects: Sequence[Objects]) -> None:
        """Count a batch."""
        found, counts = list[Tensor](), torch.zeros(len(self.class_names), len(DIFFICULTIES), dtype=torch.int64)
        for rows, each in zip(detections.cpu(), objects, strict=True):
            for level, difficulty in enumerate(DIFFICULTIES.values()):
                counting = difficulty.apply(each)
                low = (rows[:, 4] - rows[:, 2]) / each.scale < difficulty.height
                real = counting.labels[~counting.ignored]
                counts[:, level] += torch.bincount(real, minlength=len(self.class_names))
                matches = match(rows, counting, self.overlaps, low)
                columns = (matches.rows[:, 0], np.full(len(matches.rows), level), matches.outcomes, matches.rows[:, 5])
                found.append(torch.from_numpy(np.stack(columns, axis=1).astype(np.float64)))
        self._state.update(torch.cat(found), counts)

    def compute(self) -> tuple[Metrics, PerClass]:
        """Return ({"ap40_moderate", "ap40_easy", "ap40_hard"}, "ap40_moderate" by class name).

        A class without objects of a difficulty is excluded from its mean; without moderate objects its value is None.

        Raises:
            TrainingError: no object was seen.
        """
        found, counts = self._state.compute()
        if not int(counts.sum()):
            raise TrainingError("the metrics have seen no object: check that the split has boxes of its classes")
        values = {
            (level, name): _of_class(
                found[(found[:, 0] == label) & (found[:, 1] == number)], int(counts[label, number])
            )
            for number, level in enumerate(DIFFICULTIES)
            for label, name in enumerate(self.class_names)
        }
        metrics: Metrics = {}
        for level in DIFFICULTIES:
            known = [value for name in self.class_names if (value := values[level, name]) is not None]
            metrics[f"ap40_{level}"] = math.fsum(known) / len(known) if known else 0.0
        return metrics, {name: values["moderate", name] for name in self.class_names}


def _of_class(rows: Tensor, number: int) -> float | None:
    if not number:
        return None
    return average_precision(rows[:, 3].numpy(), rows[:, 2].numpy(), number, RECALLS)


class _State(Metric):  # type: ignore[misc]  # torchmetrics gathers it from all processes
    full_state_update = False

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.add_state("found", default=[], dist_reduce_fx="cat")
        counts = torch.zeros(num_classes, len(DIFFICULTIES), dtype=torch.int64)
        self.add_state("counts", default=counts, dist_reduce_fx="sum")

    def update(self, found: Tensor, counts: Tensor) -> None:
        """Add a batch's outcomes [K, 4] (class, difficulty, outcome, score) and numbers of objects [C, 3]."""
        self.found.append(found.to(self.counts.device))
        self.counts += counts.to(self.counts.device)

    def compute(self) -> tuple[Tensor, Tensor]:
        """Return all outcomes and numbers of objects."""
        found = torch.cat(self.found) if isinstance(self.found, list) else self.found
        return found.cpu(), self.counts.cpu()
