"""The records of a run: small typed dataclasses."""

import dataclasses
from typing import Any, ClassVar

EXACT = {"float32": 1e-5, "float64": 1e-12}  # tolerance of an exact change, relative to the largest output


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """The root of all records; `kind` names the type in the file."""

    kind: ClassVar[str]

    def check(self) -> None:
        """Raise `ValueError` where the fields are inconsistent; their types have been checked."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunRecord(Record):
    """How the run was started: enough to start it again."""

    kind: ClassVar[str] = "run"
    name: str
    command: str
    seed: int
    recipe: dict[str, Any]
    versions: dict[str, str]
    hardware: dict[str, str]
    started: str  # ISO 8601, with the offset from UTC
    class_names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]  # one RGB colour per class, 0 to 255
    input_shape: tuple[int, ...]  # [N, C, H, W] of the example that was traced
    data: dict[str, Any] = dataclasses.field(default_factory=dict)  # classes, samples and file lists: `data.inventory`
    num_classes: dict[str, int] = dataclasses.field(default_factory=dict)  # per sub-task, where there are several
    weights: str = ""  # SHA-256 of the file with the initial weights
    starts_wide: bool = False  # whether the shrinking network began with the trained weights of the wide one


@dataclasses.dataclass(frozen=True, kw_only=True)
class EpochRecord(Record):
    """One epoch of one training; `model` is "wide" (plain training) or "narrow" (shrinking)."""

    kind: ClassVar[str] = "epoch"
    model: str
    epoch: int  # counted from 1
    epochs: int
    loss: float  # mean over the epoch's training steps, the penalty not included
    metrics: dict[str, float]  # on the validation split, in [0, 1]; the task's main metric first
    learning_rate: float
    seconds: float  # of training steps and shrinking, without evaluation
    macs: int
    params: int
    channels: int  # remaining channel groups that may be removed
    pressed: int  # groups under pressure during the epoch


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShrinkRecord(Record):
    """One removal of zero groups between two training segments."""

    kind: ClassVar[str] = "shrink"
    model: str = "narrow"  # which training
    epoch: int  # applied after this epoch
    removed_groups: int
    macs_before: int
    macs_after: int
    params_before: int
    params_after: int
    max_rel_diff: float  # of the network's output in evaluation mode, before against after
    max_rel_diff_float64: float | None = None  # the same in float64; None where the network does not run in float64
    tolerance: float = EXACT["float32"]  # on max_rel_diff: the fixed bound, or the network's own rounding if larger
    seconds: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class WidthsRecord(Record):
    """Units per layer, as built and as learned."""

    kind: ClassVar[str] = "widths"
    layers: tuple[str, ...]
    initial: tuple[int, ...]
    learned: tuple[int, ...]

    def check(self) -> None:
        """Raise `ValueError` where there are not as many widths as layers."""
        if not len(self.layers) == len(self.initial) == len(self.learned):
            raise ValueError(f"{len(self.layers)} layers, {len(self.initial)} and {len(self.learned)} widths")


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationRecord(Record):
    """The metrics of one trained network over the whole of one split."""

    kind: ClassVar[str] = "evaluation"
    model: str
    split: str
    images: int
    metrics: dict[str, float]  # in [0, 1]; the task's main metric first
    per_class: dict[str, float | None]  # the main metric per class; None where a class does not occur
    macs: int
    params: int
    training_seconds: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class FamilyRecord(Record):
    """One network of a family produced by one training, and its budget."""

    kind: ClassVar[str] = "family"
    model: str
    budget: dict[str, float]  # bounds by quantity, as the recipe has them
    target: dict[str, Any] = dataclasses.field(
        default_factory=dict
    )  # backend, threads and precision, if it has its own


@dataclasses.dataclass(frozen=True, kw_only=True)
class RemovalRecord(Record):
    """The measured law: zero groups, remove them, compare outputs."""

    kind: ClassVar[str] = "removal"
    max_rel_diff: float  # max |difference| / max |output|
    max_abs_diff: float
    removed: int  # channel groups removed
    refused: int  # channel groups that may not be removed
    params_before: int
    params_after: int
    macs_before: int
    macs_after: int
    max_rel_diff_float64: float | None = None  # None where the network does not run in float64
    tolerance: float = EXACT["float32"]  # on max_rel_diff: the fixed bound, or the network's own rounding if larger
    tolerance_float64: float = EXACT["float64"]

    @property
    def passed(self) -> bool:
        """Whether the change is only rounding."""
        double = self.max_rel_diff_float64
        return self.max_rel_diff <= self.tolerance and (double is None or double <= self.tolerance_float64)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EditRecord(Record):
    """One edit of the plan that makes the deployed network from the wide one."""

    kind: ClassVar[str] = "edit"
    edit: str  # the edit's type, as in the plan's JSON
    summary: str  # one line for a reader
    exact: bool
    max_rel_diff: float | None  # measured when the edit was applied, in the network's own precision
    max_rel_diff_float64: float | None = None  # the same in float64


@dataclasses.dataclass(frozen=True, kw_only=True)
class ParityRecord(Record):
    """An exported network compared with its source, on real samples."""

    kind: ClassVar[str] = "parity"
    model: str
    backend: str
    samples: int
    max_abs_diff: float
    max_rel_diff: float  # max |difference| / max |output|
    argmax_agreement: float  # share of pixels or samples, in [0, 1]
    tolerance: float  # on max_rel_diff
    passed: bool
    remarks: str = ""  # possible causes of a failure


@dataclasses.dataclass(frozen=True, kw_only=True)
class LatencyRecord(Record):
    """Latency of one network on one backend; the networks of a table are timed interleaved, in one run."""

    kind: ClassVar[str] = "latency"
    model: str
    backend: str
    device: str
    input_shape: tuple[int, ...]
    threads: int
    warmup: int
    repeats: int
    median_ms: float
    p95_ms: float
    peak_memory_mb: float | None  # memory that the network adds to a process; None where not measured
    precision: str  # "float32", ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class FormRecord(Record):
    """The equivalent forms of one layer, each timed in place, and the form that is deployed."""

    kind: ClassVar[str] = "form"
    model: str
    layer: str
    target: str
    milliseconds: dict[str, float]  # of the whole network, by form; the trained form comes first
    chosen: str
    max_rel_diff: float | None  # between the forms, relative to the largest output


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuantizationRecord(Record):
    """One network in INT8 compared with the same network in float32, both as files on one backend."""

    kind: ClassVar[str] = "quantization"
    model: str
    backend: str
    file: str  # beside the float32 one
    split: str  # on which the metric was computed
    images: int
    metric: str  # the task's main metric
    float32: float  # the metric, in [0, 1]
    int8: float
    max_drop: float  # percentage points
    samples: int  # for calibration
    seed: int  # of their choice
    median_ms_float32: float  # timed interleaved
    median_ms_int8: float
    bytes_float32: int
    bytes_int8: int
    passed: bool

    @property
    def drop(self) -> float:
        """The loss of the metric in INT8, in percentage points."""
        return 100 * (self.float32 - self.int8)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleRecord(Record):
    """One image of the evaluation split with its truth and predictions, as PNG files in the run folder."""

    kind: ClassVar[str] = "sample"
    index: int
    image: str  # paths relative to the run folder
    truth: str
    wide: str | None
    narrow: str
    disagreement: float | None = None  # of wide and narrow, in [0, 1], where the image is shown for this


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoteRecord(Record):
    """A fact that a reader must know, such as a fallback that was used or a missing backend."""

    kind: ClassVar[str] = "note"
    text: str
