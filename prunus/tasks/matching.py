"""Greedy matching of detections to objects by score, with ignored objects and regions; average precision."""

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
    """The outcomes of the K detections in one image.

    Attributes:
        rows: float [K, 6] (`prunus.boxes`), by descending score.
        outcomes: int [K]; RIGHT, WRONG, IGNORED, or EXCUSED: an `unseen` detection that matches an object.
        owners: int [K], the index of the object that a detection matches; NOBODY if none.
    """

    rows: np.ndarray
    outcomes: np.ndarray
    owners: np.ndarray


def match(detections: Tensor, objects: Objects, thresholds: Sequence[float], unseen: Tensor | None = None) -> Matches:
    """Match the detections in one image to its objects, separately for each class.

    In order of descending score, each detection takes the unmatched object that it overlaps most, if the IoU exceeds
    its class's threshold. A detection without an object is IGNORED if its IoU with an ignored object of its class
    exceeds the threshold, or if a larger share of it than the threshold lies in a region without a class; otherwise it
    is WRONG.

    Args:
        detections: rows [K, 6] (`prunus.boxes`); rows of score 0 are skipped.
        objects: of the image.
        thresholds: IoU threshold of each class, in [0, 1).
        unseen: bool [K], detections to ignore (KITTI: of too little height), which are matched last. None: none.
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
    """Whether each detection matches an ignored object, or lies in a region without a class: bool [K]."""
    ignored = objects.chosen(objects.ignored)
    alike = labels[:, None] == ignored.labels.numpy()[None]
    shared = overlaps(detections[:, 1:5], ignored.boxes).numpy()
    inside = covered(detections[:, 1:5], ignored.boxes).numpy()
    region = (ignored.labels == EVERY).numpy()[None]
    excused: np.ndarray = ((alike & (shared > least[:, None])) | (region & (inside > least[:, None]))).any(axis=1)
    return excused


def average_precision(scores: np.ndarray, outcomes: np.ndarray, number: int, recalls: np.ndarray) -> float:
    """Return the mean over `recalls` of the largest precision at that recall or a higher one.

    Args:
        scores: of a class's detections in all images, float [K].
        outcomes: of these detections, [K].
        number: number of objects that count, at least 1.
        recalls: in (0, 1], ascending; a recall that is not reached has precision 0.
    """
    order = np.argsort(-scores, kind="stable")
    right, wrong = np.cumsum(outcomes[order] == RIGHT), np.cumsum(outcomes[order] == WRONG)
    last = np.flatnonzero(np.diff(scores[order], append=-np.inf))  # equal scores form one step
    right, wrong = right[last], wrong[last]
    precision = right / np.maximum(1, right + wrong)
    best = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    return float(best[np.searchsorted(right / number, recalls - 1e-9)].mean())
