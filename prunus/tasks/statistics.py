"""What a task counts in each image, so that its metric follows for any part of the classes and any set of images.

A metric here is a function of sums over images. `Counts` holds the summands as a sparse matrix, image by image: the
metric of a slice is then that of the sum over its images, and a bootstrap over images is one matrix product.
"""

import abc
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unit:
    """A part of what is counted: one class, or one class within a group such as ("size", "small")."""

    label: str
    kind: str = "class"
    name: str = ""  # of the group; "" for the class as a whole


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Counts:
    """The counts of N images: U units of K numbers each.

    Attributes:
        metric: what a slice's number is called, as the task's metrics are.
        units: U of them.
        numbers: sparse [U * K, N]; column n holds what image n adds.
        samples: float32 [U, N], objects, labels or images that the truth has of a unit in each image.
        score: from sums [..., K] to the metric of each, in [0, 1]; NaN where nothing is defined.
        pooled: whether a slice of several units sums their numbers; else it is the mean of their scores.
        shared: whether samples are images, which several units share: in a slice of several each counts once.
    """

    metric: str
    units: tuple[Unit, ...]
    numbers: Tensor
    samples: Tensor
    score: Callable[[Tensor], Tensor]
    pooled: bool
    shared: bool = False

    def num_samples(self, units: Sequence[int], images: Tensor | None = None) -> int:
        """Return the number of samples of some units, on all images or those of a mask, bool [N]."""
        seen = self.samples[list(units)] if images is None else self.samples[list(units)][:, images]
        return int((seen.max(0).values if self.shared and len(seen) else seen).sum())

    def value(self, units: Sequence[int], weights: Tensor) -> Tensor:
        """Return the metric of some units, with each image counted as often as `weights` [N, B] says: [B]."""
        return self.values([tuple(units)], weights)[0]

    def values(self, slices: Sequence[Sequence[int]], weights: Tensor) -> Tensor:
        """Return the metric of each slice of units with the image weights [N, B]: [slices, B]; NaN: undefined."""
        sums = torch.sparse.mm(self.numbers, weights).unflatten(0, (len(self.units), -1)).movedim(1, 2)  # [U, B, K]
        if self.pooled:
            return torch.stack([self.score(sums[list(units)].sum(0)) for units in slices])
        scores = self.score(sums)
        return torch.stack([scores[list(units)].nanmean(0) for units in slices])


class Statistics(abc.ABC):
    """Counts a split, image by image, in its order."""

    @abc.abstractmethod
    def update(self, output: Any, target: Any) -> None:
        """Count a batch: a network's raw output against the targets."""

    @abc.abstractmethod
    def counts(self) -> Counts:
        """Return the counts of all images so far."""

    @abc.abstractmethod
    def calibration(self) -> Tensor:
        """Return, for 15 bins of confidence, how often it was, the sum of it, and how often it was right: [15, 3]."""

    def curves(self) -> dict[str, Tensor]:
        """Return a curve of precision over recall for each class, [P, 2] of (recall, precision); {} where none is."""
        return {}


BINS = 15  # of confidence (Guo et al., ICML 2017)


class Confidences:
    """How often a confidence was right, in bins of equal width."""

    def __init__(self) -> None:
        self.table = torch.zeros(BINS, 3, dtype=torch.float64)

    def add(self, confidence: Tensor, right: Tensor) -> None:
        """Count confidences in [0, 1], each right or not: [K]."""
        index = (confidence.double() * BINS).long().clamp(0, BINS - 1).cpu()
        values = torch.stack([torch.ones_like(confidence), confidence, right.to(confidence.dtype)], dim=1)
        self.table.index_add_(0, index, values.double().cpu())


def expected_calibration_error(table: Tensor) -> float | None:
    """Return sum_b n_b / n |right_b / n_b - confidence_b / n_b| (Guo et al., ICML 2017, eq. 3); None of nothing."""
    total = float(table[:, 0].sum())
    return float((table[:, 2] - table[:, 1]).abs().sum()) / total if total else None


def matrix(rows: Tensor, columns: Tensor, values: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the sparse matrix [rows, columns] of the `values`; those of one place are added."""
    indices = torch.stack([rows, columns])
    return torch.sparse_coo_tensor(indices, values.float(), size, check_invariants=True).coalesce()


def sparse(images: Sequence[Tensor], size: int) -> Tensor:
    """Return the sparse matrix [size, N] whose columns are dense vectors [size]."""
    rows = [torch.nonzero(each).flatten() for each in images]
    columns = [torch.full_like(row, number) for number, row in enumerate(rows)]
    values = [each[row] for each, row in zip(images, rows, strict=True)]
    return matrix(torch.cat(rows), torch.cat(columns), torch.cat(values), (size, len(images)))


class LabelStatistics(Statistics):
    """Classification: of each class (right, seen)."""

    def __init__(self, class_names: Sequence[str], scores: Callable[[Any], Tensor]) -> None:
        self.class_names, self.scores = tuple(class_names), scores
        self._labels, self._hits, self._confidences = list[Tensor](), list[Tensor](), Confidences()

    def update(self, output: Any, target: Tensor) -> None:
        """Count a batch: scores [N, C] against labels [N]."""
        confidence, label = self.scores(output).float().softmax(1).max(1)
        hits = label == target
        self._confidences.add(confidence, hits)
        self._labels.append(target.cpu())
        self._hits.append(hits.cpu())

    def counts(self) -> Counts:
        """Return the hits and labels of each class."""
        labels, hits = torch.cat(self._labels), torch.cat(self._hits).float()
        images, num = torch.arange(len(labels)), len(self.class_names)
        rows, values = torch.cat([2 * labels, 2 * labels + 1]), torch.cat([hits, torch.ones_like(hits)])
        samples = torch.zeros(num, len(labels))
        samples[labels, images] = 1
        return Counts(
            metric="top1",
            units=tuple(Unit(label=name) for name in self.class_names),
            numbers=matrix(rows, images.repeat(2), values, (2 * num, len(labels))),
            samples=samples,
            score=lambda sums: sums[..., 0] / sums[..., 1],
            pooled=True,
        )

    def calibration(self) -> Tensor:
        """Return the table of confidences."""
        return self._confidences.table


class MaskStatistics(Statistics):
    """Segmentation: of each class (pixels right, pixels of the truth or the prediction)."""

    def __init__(self, class_names: Sequence[str], ignore_index: int, scores: Callable[[Any, Tensor], Any]) -> None:
        self.class_names, self.ignore_index, self.scores = tuple(class_names), ignore_index, scores
        self._rows, self._samples, self._confidences = list[Tensor](), list[Tensor](), Confidences()

    def update(self, output: Any, target: Tensor) -> None:
        """Count a batch: scores [N, C, h, w] against masks [N, H, W]."""
        scores, target = self.scores(output, target)
        confidence, label = scores.float().softmax(1).max(1)
        valid, num = target != self.ignore_index, len(self.class_names)
        self._confidences.add(confidence[valid], (label == target)[valid])
        image = torch.arange(len(target), device=target.device)[:, None, None].expand_as(target)[valid]
        pairs = (image * num + target[valid]) * num + label[valid]
        confusion = torch.bincount(pairs, minlength=len(target) * num * num).reshape(-1, num, num).cpu()
        right = confusion.diagonal(dim1=1, dim2=2)
        truth, union = confusion.sum(2), confusion.sum(1) + confusion.sum(2) - right
        self._rows += torch.stack([right, union], dim=2).flatten(1).unbind(0)
        self._samples += (truth > 0).float().unbind(0)

    def counts(self) -> Counts:
        """Return the intersections and unions of each class; a sample is an image that has the class."""
        return Counts(
            metric="miou",
            units=tuple(Unit(label=name) for name in self.class_names),
            numbers=sparse(self._rows, 2 * len(self.class_names)),
            samples=torch.stack(self._samples, dim=1),
            shared=True,
            score=lambda sums: sums[..., 0] / sums[..., 1],
            pooled=False,
        )

    def calibration(self) -> Tensor:
        """Return the table of confidences, over pixels."""
        return self._confidences.table
