"""Per-image counts of a task, from which its metric follows for any subset of the classes and of the images.

A metric here is a function of sums over images. `Counts` holds the summands of each image in a sparse matrix: the
metric of a slice follows from the sum over its images, and a bootstrap over images is one matrix product.
"""

import abc
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unit:
    """A unit of counting: one class, or one class within a group such as ("size", "small")."""

    label: str
    kind: str = "class"
    name: str = ""  # of the group; "" for the class as a whole


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Counts:
    """The counts of N images: U units of K numbers each.

    Attributes:
        metric: name of a slice's metric.
        units: the U units.
        numbers: sparse [U * K, N]; column n holds the contribution of image n.
        samples: float32 [U, N], number of the unit's objects, labels or images in the truth of each image.
        score: maps sums [..., K] to metrics in [0, 1]; NaN where undefined.
        pooled: whether a slice of several units sums their numbers; otherwise it averages their scores.
        shared: whether samples are images, which count once in a slice of several units.
    """

    metric: str
    units: tuple[Unit, ...]
    numbers: Tensor
    samples: Tensor
    score: Callable[[Tensor], Tensor]
    pooled: bool
    shared: bool = False

    def num_samples(self, units: Sequence[int], images: Tensor | None = None) -> int:
        """Return the number of samples of some units, on all images or those in a mask, bool [N]."""
        seen = self.samples[list(units)] if images is None else self.samples[list(units)][:, images]
        return int((seen.max(0).values if self.shared and len(seen) else seen).sum())

    def value(self, units: Sequence[int], weights: Tensor) -> Tensor:
        """Return the metric of some units, [B], with image weights [N, B]."""
        return self.values([tuple(units)], weights)[0]

    def values(self, slices: Sequence[Sequence[int]], weights: Tensor) -> Tensor:
        """Return the metric of each slice of units, [slices, B], with image weights [N, B]; NaN where undefined."""
        sums = torch.sparse.mm(self.numbers, weights).unflatten(0, (len(self.units), -1)).movedim(1, 2)  # [U, B, K]
        if self.pooled:
            return torch.stack([self.score(sums[list(units)].sum(0)) for units in slices])
        scores = self.score(sums)
        return torch.stack([scores[list(units)].nanmean(0) for units in slices])


class Statistics(abc.ABC):
    """Counts a split image by image, in the order of the split."""

    @abc.abstractmethod
    def update(self, output: Any, target: Any) -> None:
        """Count a batch: a network's raw output against the targets."""

    @abc.abstractmethod
    def counts(self) -> Counts:
        """Return the counts of all images so far."""

    @abc.abstractmethod
    def calibration(self) -> Tensor:
        """Return [15, 3]: for each bin of confidence, the number, summed confidence and number correct."""

    def curves(self) -> dict[str, Tensor]:
        """Return a precision-recall curve for each class, [P, 2] of (recall, precision); {} if the task has none."""
        return {}


BINS = 15  # of confidence (Guo et al., ICML 2017)


class Confidences:
    """Counts confidences and how often they were correct, in bins of equal width."""

    def __init__(self) -> None:
        self.table = torch.zeros(BINS, 3, dtype=torch.float64)

    def add(self, confidence: Tensor, right: Tensor) -> None:
        """Count confidences in [0, 1], [K], each correct or not, `right` [K]."""
        index = (confidence.double() * BINS).long().clamp(0, BINS - 1).cpu()
        values = torch.stack([torch.ones_like(confidence), confidence, right.to(confidence.dtype)], dim=1)
        self.table.index_add_(0, index, values.double().cpu())


def expected_calibration_error(table: Tensor) -> float | None:
    """Return sum_b n_b / n |right_b / n_b - confidence_b / n_b| (Guo et al., ICML 2017, eq. 3); None if n = 0."""
    total = float(table[:, 0].sum())
    return float((table[:, 2] - table[:, 1]).abs().sum()) / total if total else None


def matrix(rows: Tensor, columns: Tensor, values: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the sparse matrix of shape `size` with `values` at `rows` and `columns`; values at one place are added."""
    indices = torch.stack([rows, columns])
    return torch.sparse_coo_tensor(indices, values.float(), size, check_invariants=True).coalesce()


def sparse(images: Sequence[Tensor], size: int) -> Tensor:
    """Return the sparse matrix [size, N] whose columns are dense vectors [size]."""
    rows = [torch.nonzero(each).flatten() for each in images]
    columns = [torch.full_like(row, number) for number, row in enumerate(rows)]
    values = [each[row] for each, row in zip(images, rows, strict=True)]
    return matrix(torch.cat(rows), torch.cat(columns), torch.cat(values), (size, len(images)))


class LabelStatistics(Statistics):
    """Classification: (hits, images) of each class."""

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
    """Segmentation: (intersection, union) of truth and prediction for each class, in pixels."""

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
