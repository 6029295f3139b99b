"""Which detection is which object: greedy matching by score, with objects and regions that count for nothing."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from prunus.boxes import EVERY, Objects, covered, overlaps

RIGHT, WRONG, IGNORED, EXCUSED = 0, 1, 2, 3
NOBODY = -1


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Matches:
    """How the K detections in one image turned out.

    Attributes:
        rows: float [K, 6] (`prunus.boxes`), by descending score.
        outcomes: int [K]; RIGHT, WRONG, IGNORED, or EXCUSED: it counts for nothing, nor does its object as missed.
        owners: int [K], the object that a detection is; NOBODY where it is none.
    """

    rows: np.ndarray
    outcomes: np.ndarray
    owners: np.ndarray


def match(detections: Tensor, objects: Objects, thresholds: Sequence[float], unseen: Tensor | None = None) -> Matches:
    """Match the detections in one image to its objects, each class for itself.

    The best detection comes first; each takes, of the objects left that it overlaps with an IoU above its class's
    threshold, the one that it overlaps most. What takes none is IGNORED where it overlaps an ignored object of its
    class so far, or where more than that share of it lies in a region without classes; otherwise it is WRONG.

    Args:
        detections: rows [K, 6] (`prunus.boxes`); those of score 0 are passed over.
        objects: of the image.
        thresholds: of each class, in [0, 1).
        unseen: bool [K], detections that count for nothing (KITTI: too low); they come last. None: no such ones.
    """
    found = detections[:, 5] > 0
    hidden = (torch.zeros(len(detections), dtype=torch.bool) if unseen is None else unseen)[found].numpy()
    detections = detections[found]
    order = detections[:, 5].argsort(descending=True, stable=True)
    detections, hidden = detections[order], hidden[order.numpy()]
    labels = detections[:, 0].long().numpy()
    least = np.asarray(thresholds)[labels]
    known, ignored = objects.labels.numpy(), objects.ignored.numpy()
    outcomes, owners = np.full(len(detections), WRONG), np.full(len(detections), NOBODY)
    real = (labels[:, None] == known[None]) & ~ignored
    if real.any():
        shared = np.where(real, overlaps(detections[:, 1:5], objects.boxes).numpy(), 0.0)
        near = np.flatnonzero((shared > least[:, None]).any(axis=1))
        for index in near[np.argsort(hidden[near], kind="stable")].tolist():
            best = int(shared[index].argmax())
            if shared[index, best] > least[index]:
                outcomes[index], owners[index] = (EXCUSED if hidden[index] else RIGHT), best
                shared[:, best] = 0
    free = outcomes == WRONG
    if ignored.any():
        hidden = hidden | _in_ignored(detections, objects, labels, least)
    outcomes[free & hidden] = IGNORED
    return Matches(rows=detections.numpy(), outcomes=outcomes, owners=owners)


def _in_ignored(detections: Tensor, objects: Objects, labels: np.ndarray, least: np.ndarray) -> np.ndarray:
    """Whether each detection is one of an ignored object, or lies in a region without classes: bool [K]."""
    ignored = objects.chosen(objects.ignored)
    alike = labels[:, None] == ignored.labels.numpy()[None]
    shared = overlaps(detections[:, 1:5], ignored.boxes).numpy()
    inside = covered(detections[:, 1:5], ignored.boxes).numpy()
    region = (ignored.labels == EVERY).numpy()[None]
    excused: np.ndarray = ((alike & (shared > least[:, None])) | (region & (inside > least[:, None]))).any(axis=1)
    return excused


def average_precision(scores: np.ndarray, outcomes: np.ndarray, number: int, recalls: np.ndarray) -> float:
    """Return the mean, over the `recalls`, of the largest precision that is reached at such a recall or a higher one.

    Args:
        scores: of the detections of a class in all images, float [K].
        outcomes: of each, [K].
        number: of objects that count, at least 1.
        recalls: in (0, 1], ascending; a recall that is not reached has the precision 0.
    """
    order = np.argsort(-scores, kind="stable")
    right, wrong = np.cumsum(outcomes[order] == RIGHT), np.cumsum(outcomes[order] == WRONG)
    last = np.flatnonzero(np.diff(scores[order], append=-np.inf))  # equal scores come together
    right, wrong = right[last], wrong[last]
    precision = right / np.maximum(1, right + wrong)
    best = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    return float(best[np.searchsorted(right / number, recalls - 1e-9)].mean())
