"""Which detection is which object: greedy matching by score, with objects and regions that count for nothing."""

import dataclasses

import numpy as np
import torch
from torch import Tensor

from prunus.boxes import EVERY, Objects, covered, overlaps

RIGHT, WRONG, IGNORED, EXCUSED = 0, 1, 2, 3
NOBODY = -1


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Matches:
    """How the K detections of one class in one image turned out.

    Attributes:
        scores: float [K], descending.
        outcomes: int [K]; RIGHT, WRONG, IGNORED, or EXCUSED: it counts for nothing, nor does its object as missed.
        owners: int [K], the object that a detection is; NOBODY where it is none.
    """

    scores: np.ndarray
    outcomes: np.ndarray
    owners: np.ndarray


def match(detections: Tensor, objects: Objects, label: int, threshold: float, unseen: Tensor | None = None) -> Matches:
    """Match the detections of one class in one image to its objects.

    The best detection comes first; each takes, of the objects left that it overlaps with an IoU above `threshold`, the
    one that it overlaps most. What takes none is IGNORED where it overlaps an ignored object of the class so far, or
    where more than `threshold` of it lies in a region without classes; otherwise it is WRONG.

    Args:
        detections: rows [K, 6] (`prunus.boxes`); those of other classes and of score 0 are passed over.
        objects: of the image.
        label: the class.
        threshold: in [0, 1).
        unseen: bool [K], detections that count for nothing (KITTI: too low); they come last. None: no such ones.
    """
    own = (detections[:, 0] == label) & (detections[:, 5] > 0)
    unseen = torch.zeros(int(own.sum()), dtype=torch.bool) if unseen is None else unseen[own]
    detections = detections[own]
    order = detections[:, 5].argsort(descending=True, stable=True)
    detections, unseen = detections[order], unseen[order]
    real = objects.chosen((objects.labels == label) & ~objects.ignored)
    numbers = torch.nonzero((objects.labels == label) & ~objects.ignored).flatten().numpy()
    shared = overlaps(detections[:, 1:5], real.boxes).numpy()
    outcomes = np.full(len(detections), WRONG)
    owners = np.full(len(detections), NOBODY)
    hidden = unseen.numpy()
    near = np.flatnonzero((shared > threshold).any(axis=1)) if shared.size else np.zeros(0, int)
    for index in sorted(near.tolist(), key=lambda each: bool(hidden[each])):
        best = int(shared[index].argmax())
        if shared[index, best] > threshold:
            outcomes[index], owners[index] = (EXCUSED if hidden[index] else RIGHT), numbers[best]
            shared[:, best] = 0
    free = outcomes == WRONG
    outcomes[free & (hidden | _in_ignored(detections, objects, label, threshold))] = IGNORED
    return Matches(scores=detections[:, 5].numpy(), outcomes=outcomes, owners=owners)


def _in_ignored(detections: Tensor, objects: Objects, label: int, threshold: float) -> np.ndarray:
    """Whether each detection is one of an ignored object, or lies in a region without classes: bool [K]."""
    similar = objects.boxes[objects.ignored & (objects.labels == label)]
    regions = objects.boxes[objects.labels == EVERY]
    inside = (overlaps(detections[:, 1:5], similar) > threshold).any(dim=1)
    inside |= (covered(detections[:, 1:5], regions) > threshold).any(dim=1)
    found: np.ndarray = inside.numpy()
    return found


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
