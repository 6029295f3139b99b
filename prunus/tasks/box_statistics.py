"""Per-image counts of detections: correct and false ones by score, for each class, object size and distance."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prunus.boxes import Objects
from prunus.tasks.matching import NOBODY, RIGHT, WRONG, match
from prunus.tasks.statistics import Confidences, Counts, Statistics, Unit, matrix

SIZES = (("small", 0.0, 32.0), ("medium", 32.0, 96.0), ("large", 96.0, np.inf))  # sides of squares of equal area (COCO)
BANDS = (("to 15 m", 0.0, 15.0), ("15 to 30 m", 15.0, 30.0), ("30 to 50 m", 30.0, 50.0), ("from 50 m", 50.0, np.inf))
STEPS = 64  # steps of the score, at quantiles of the scores of correct detections
RECALLS = torch.linspace(0, 1, 101)
LOWEST = 0.01  # detections below this score are dropped: their effect on the metric is negligible


class BoxStatistics(Statistics):
    """Correct and false detections by score, for each class, and for each class within a size or distance range.

    The metric is the average precision at the IoU in `thresholds` (one per class), over 101 recalls, with scores
    rounded to 64 quantiles. A false detection counts for the size of its own box, and for the distance at which objects
    of its class have its height. Sizes are in pixels of the image file.
    """

    def __init__(
        self,
        class_names: Sequence[str],
        decode: Callable[[Any], Tensor],
        objects: Callable[[Tensor], list[Objects]],
        thresholds: Sequence[float],
    ) -> None:
        self.class_names, self.decode, self.objects, self.thresholds = tuple(class_names), decode, objects, thresholds
        self._found, self._truth = list[np.ndarray](), list[np.ndarray]()
        self._images = 0

    def update(self, output: Any, target: Tensor) -> None:
        """Count a batch: the raw output against rows of objects."""
        for rows, objects in zip(self.decode(output).cpu(), self.objects(target.cpu()), strict=True):
            self._add(rows[rows[:, 5] >= LOWEST], objects)

    def _add(self, rows: Tensor, objects: Objects) -> None:
        """Store each detection (image, class, score, outcome, side, height, distance) and each object likewise.

        A matched detection has the side and the distance of its object.
        """
        scale, boxes = objects.scale, objects.boxes.numpy()
        sides, heights = _sides(boxes) / scale, (boxes[:, 3] - boxes[:, 1]) / scale
        labels, distances = objects.labels.numpy(), objects.distance.numpy()
        real = np.flatnonzero(~objects.ignored.numpy())
        image = np.full(len(real), self._images)
        self._truth.append(np.stack([image, labels[real], sides[real], heights[real], distances[real]], axis=1))
        found = match(rows, objects, self.thresholds)
        boxes, owned = found.rows[:, 1:5], found.owners != NOBODY
        side, height = _sides(boxes) / scale, (boxes[:, 3] - boxes[:, 1]) / scale
        distance = np.full(len(boxes), np.nan)
        side[owned], distance[owned] = sides[found.owners[owned]], distances[found.owners[owned]]
        image = np.full(len(boxes), self._images)
        columns = (image, found.rows[:, 0], found.rows[:, 5], found.outcomes, side, height, distance)
        self._found.append(np.stack(columns, axis=1))
        self._images += 1

    def counts(self) -> Counts:
        """Return the counts of each unit: STEPS of correct detections, STEPS of false detections, one of objects."""
        found = np.concatenate([np.zeros((0, 7)), *self._found])
        truth = np.concatenate([np.zeros((0, 5)), *self._truth])
        found = found[(found[:, 3] == RIGHT) | (found[:, 3] == WRONG)]
        self._place_wrong(found, truth)
        numbers, units, samples = list[Tensor](), list[Unit](), list[Tensor]()
        for unit, label, side, distance in self._units(truth):
            mine, objects = _inside(found, label, 4, side, 6, distance), _inside(truth, label, 2, side, 4, distance)
            steps = _steps(mine)
            rows = np.where(mine[:, 3] == RIGHT, 0, STEPS) + np.searchsorted(-steps, -mine[:, 2], side="left")
            rows = np.concatenate([rows, np.full(len(objects), 2 * STEPS)]) + len(units) * (2 * STEPS + 1)
            images = np.concatenate([mine[:, 0], objects[:, 0]])
            numbers.append(torch.from_numpy(np.stack([rows, images])).long())
            samples.append(torch.from_numpy(np.bincount(objects[:, 0].astype(int), minlength=self._images)).float())
            units.append(unit)
        indices = torch.cat(numbers, dim=1)
        size = (len(units) * (2 * STEPS + 1), self._images)
        return Counts(
            metric="map50" if set(self.thresholds) == {0.5} else "average_precision",
            units=tuple(units),
            numbers=matrix(indices[0], indices[1], torch.ones(indices.shape[1]), size),
            samples=torch.stack(samples),
            score=average_precisions,
            pooled=False,
        )

    def _units(self, truth: np.ndarray) -> list[tuple[Unit, int, tuple[float, float], tuple[float, float] | None]]:
        """Return each unit with its class, its range of sides, and its range of distances (None: any)."""
        any_side, found = (0.0, np.inf), list[tuple[Unit, int, tuple[float, float], tuple[float, float] | None]]()
        for label, name in enumerate(self.class_names):
            found.append((Unit(label=name), label, any_side, None))
            found += [(Unit(label=name, kind="size", name=size), label, (low, high), None) for size, low, high in SIZES]
            if np.isfinite(truth[:, 4]).any():
                found += [
                    (Unit(label=name, kind="distance", name=band), label, any_side, (low, high))
                    for band, low, high in BANDS
                ]
        return found

    def _place_wrong(self, found: np.ndarray, truth: np.ndarray) -> None:
        """Set each false detection's distance to that at which objects of its class have its height.

        For one class, height * distance is roughly constant, so its median over the objects is divided by the height.
        """
        known = np.isfinite(truth[:, 4])
        for label in range(len(self.class_names)):
            own = truth[known & (truth[:, 1] == label)]
            wrong = (found[:, 1] == label) & (found[:, 3] == WRONG)
            if len(own):
                found[wrong, 6] = np.median(own[:, 3] * own[:, 4]) / np.maximum(1.0, found[wrong, 5])

    def calibration(self) -> Tensor:
        """Return the table of scores; undetected objects are in none of its bins."""
        confidences = Confidences()
        found = np.concatenate([np.zeros((0, 7)), *self._found])
        found = found[(found[:, 3] == RIGHT) | (found[:, 3] == WRONG)]
        confidences.add(torch.from_numpy(found[:, 2].copy()), torch.from_numpy(found[:, 3] == RIGHT))
        return confidences.table

    def curves(self) -> dict[str, Tensor]:
        """Return recall and precision at each step of the score, for each class that has objects."""
        counts, curves = self.counts(), dict[str, Tensor]()
        sums = torch.sparse.mm(counts.numbers, torch.ones(self._images, 1)).reshape(len(counts.units), -1)
        for unit, numbers in zip(counts.units, sums, strict=True):
            if unit.kind == "class" and numbers[-1]:
                right, wrong = numbers[:STEPS].cumsum(0), numbers[STEPS:-1].cumsum(0)
                used = right + wrong > 0
                curves[unit.label] = torch.stack([right / numbers[-1], right / (right + wrong)], dim=1)[used]
        return curves


def _sides(boxes: np.ndarray) -> np.ndarray:
    """Return the side of the square with each box's area."""
    sides: np.ndarray = np.sqrt((boxes[:, 2] - boxes[:, 0]).clip(0) * (boxes[:, 3] - boxes[:, 1]).clip(0))
    return sides


def _inside(
    rows: np.ndarray, label: int, side: int, sides: tuple[float, float], far: int, distances: tuple[float, float] | None
) -> np.ndarray:
    """Return the rows of a class whose columns `side` and `far` lie in the ranges."""
    inside = (rows[:, 1] == label) & (rows[:, side] >= sides[0]) & (rows[:, side] < sides[1])
    if distances is not None:
        inside &= (rows[:, far] >= distances[0]) & (rows[:, far] < distances[1])
    chosen: np.ndarray = rows[inside]
    return chosen


def _steps(found: np.ndarray) -> np.ndarray:
    """Return the lower ends of all steps of the score but the last, descending, float [STEPS - 1]."""
    right = np.sort(found[found[:, 3] == RIGHT, 2])[::-1]
    if not len(right):
        return np.full(STEPS - 1, np.inf)
    places = np.linspace(0, len(right) - 1, STEPS - 1).round().astype(int)
    chosen: np.ndarray = right[places]
    return chosen


def average_precisions(sums: Tensor) -> Tensor:
    """Return the average precision at 101 recalls from sums [..., 2 * STEPS + 1]; NaN without objects."""
    right, wrong, number = sums[..., :STEPS].cumsum(-1), sums[..., STEPS:-1].cumsum(-1), sums[..., -1:]
    precision = right / (right + wrong).clamp(min=1)
    best = precision.flip(-1).cummax(-1).values.flip(-1)
    best = torch.cat([best, torch.zeros_like(best[..., :1])], dim=-1)
    reached = torch.searchsorted(
        (right / number).contiguous(), (RECALLS - 1e-6).expand(*right.shape[:-1], -1).contiguous()
    )
    found = best.gather(-1, reached).mean(-1)
    return torch.where(number[..., 0] > 0, found, torch.nan)
