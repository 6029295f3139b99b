"""The interface of detection metrics: settings that bind to the classes, and counts over a set."""

import abc
from collections.abc import Sequence

from torch import Tensor

from prunus.boxes import Objects
from prunus.tasks.interface import Metrics, PerClass


class BoxCounts(abc.ABC):
    """Counts over a set, summed over all processes under distributed training."""

    @abc.abstractmethod
    def update(self, detections: Tensor, objects: Sequence[Objects]) -> None:
        """Count a batch: detections [N, K, 6] (`prunus.boxes`) against the objects of each image."""

    @abc.abstractmethod
    def compute(self) -> tuple[Metrics, PerClass]:
        """Return the metrics, the main metric first, and the main metric per class, all in [0, 1]."""


class BoxMetric(abc.ABC):
    """Settings of a metric; a final subclass is a frozen dataclass."""

    main: str  # the name of the main metric; higher is better

    def overlap(self, name: str) -> float:
        """Return the IoU above which the comparison of slices counts a detection of the class `name` as correct."""
        return 0.5

    @abc.abstractmethod
    def bind(self, class_names: Sequence[str]) -> BoxCounts:
        """Return an empty metric."""
