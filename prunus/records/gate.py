"""The comparison of the wide and the narrow network, as records."""

import dataclasses
from typing import ClassVar

from prunus.records.kinds import Record


@dataclasses.dataclass(frozen=True, kw_only=True)
class GateRecord(Record):
    """A comparison of wide and narrow, slice by slice; its slices, curves and changed images follow."""

    kind: ClassVar[str] = "gate"
    split: str
    images: int
    metric: str  # the metric of every slice; for several tasks one per task, separated by commas
    max_drop: float  # percentage points
    min_samples: int
    confidence: float  # of the intervals
    passed: bool
    calibration_wide: float | None  # expected calibration error, in [0, 1]; for several tasks that of the first
    calibration_narrow: float | None
    calibrations: dict[str, tuple[float | None, float | None]] = dataclasses.field(default_factory=dict)  # by sub-task


@dataclasses.dataclass(frozen=True, kw_only=True)
class SliceRecord(Record):
    """One slice of a comparison; metrics are in [0, 1], the drop is wide minus narrow."""

    kind: ClassVar[str] = "slice"
    slice: str  # "all", "class", "condition", ...
    name: str
    samples: int
    wide: float | None
    narrow: float | None
    low: float | None  # bounds of the drop's interval
    high: float | None
    verdict: str  # "fell", "kept", "in doubt", "too small"


@dataclasses.dataclass(frozen=True, kw_only=True)
class CurveRecord(Record):
    """Precision over recall of one class."""

    kind: ClassVar[str] = "curve"
    model: str
    name: str
    recall: tuple[float, ...]
    precision: tuple[float, ...]

    def check(self) -> None:
        """Raise `ValueError` where their lengths differ."""
        if len(self.recall) != len(self.precision):
            raise ValueError("recall and precision are of different lengths")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RobustnessRecord(Record):
    """The main metric of wide and narrow on changed images."""

    kind: ClassVar[str] = "robustness"
    change: str
    strength: float
    wide: float
    narrow: float
