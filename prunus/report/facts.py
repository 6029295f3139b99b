"""A run's records, sorted by subject.

A resumed or repeated run writes some records twice; the later one is used, since it describes the network that is in
the folder now. A run may be incomplete: anything that was not recorded is None or empty here.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import TypeVar

from prunus.records import (
    CurveRecord,
    EditRecord,
    EpochRecord,
    EvaluationRecord,
    FamilyRecord,
    FormRecord,
    GateRecord,
    LatencyRecord,
    NoteRecord,
    ParityRecord,
    QuantizationRecord,
    Record,
    RemovalRecord,
    RobustnessRecord,
    RunRecord,
    SampleRecord,
    ShrinkRecord,
    SliceRecord,
    WidthsRecord,
)

MODELS = ("wide", "narrow")
BRANCH = "narrow-"  # prefix of networks that branched off the narrow one's training
# In order of preference: no decision was made on the test split.
SPLITS = ("test", "validation", "train")

R = TypeVar("R", bound=Record)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """The conditions of a latency measurement; only networks under equal conditions are compared."""

    backend: str
    device: str
    threads: int
    precision: str
    input_shape: tuple[int, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facts:
    """The records of one run by subject; the keys of dictionaries are models, such as "wide", "narrow"."""

    run: RunRecord | None
    epochs: dict[str, tuple[EpochRecord, ...]]
    shrinks: tuple[ShrinkRecord, ...]
    widths: WidthsRecord | None
    split: str | None  # the split of `evaluations`
    evaluations: dict[str, EvaluationRecord]
    latencies: dict[Setting, dict[str, LatencyRecord]]
    parities: tuple[ParityRecord, ...]
    forms: tuple[FormRecord, ...]  # timings of layers with several forms
    quantizations: tuple[QuantizationRecord, ...]
    family: tuple[FamilyRecord, ...]  # the largest network first
    removals: tuple[RemovalRecord, ...]
    edits: tuple[EditRecord, ...]
    samples: tuple[SampleRecord, ...]
    gallery: tuple[SampleRecord, ...]  # images on which wide and narrow disagree, the worst first
    gate: GateRecord | None
    slices: tuple[SliceRecord, ...]
    curves: dict[str, dict[str, CurveRecord]]  # by class, then by model
    robustness: tuple[RobustnessRecord, ...]
    notes: tuple[str, ...]


def gather(records: Sequence[Record]) -> Facts:
    """Sort `records` by subject; of two records on the same subject and network, use the later one."""
    runs = of_type(RunRecord, records)
    widths = of_type(WidthsRecord, records)
    split, evaluations = _evaluations(of_type(EvaluationRecord, records))
    shrinks = {(record.model, record.epoch): record for record in of_type(ShrinkRecord, records)}
    parities = {(r.model, r.backend): r for r in of_type(ParityRecord, records)}
    pictures = of_type(SampleRecord, records)
    samples = {record.index: record for record in pictures if record.disagreement is None}
    gallery = {record.index: record for record in pictures if record.disagreement is not None}
    gates = of_type(GateRecord, records)
    curves: dict[str, dict[str, CurveRecord]] = {}
    for curve in of_type(CurveRecord, records):
        curves.setdefault(curve.name, {})[curve.model] = curve
    slices = {(record.slice, record.name): record for record in of_type(SliceRecord, records)}
    robustness = {(record.change, record.strength): record for record in of_type(RobustnessRecord, records)}
    return Facts(
        run=runs[-1] if runs else None,
        epochs=_epochs(of_type(EpochRecord, records)),
        shrinks=tuple(shrinks.values()),
        widths=widths[-1] if widths else None,
        split=split,
        evaluations=evaluations,
        latencies=_latencies(of_type(LatencyRecord, records)),
        parities=tuple(parities.values()),
        forms=tuple({(record.model, record.layer): record for record in of_type(FormRecord, records)}.values()),
        quantizations=tuple(
            {(record.model, record.backend): record for record in of_type(QuantizationRecord, records)}.values()
        ),
        family=tuple({record.model: record for record in of_type(FamilyRecord, records)}.values()),
        removals=of_type(RemovalRecord, records),
        edits=of_type(EditRecord, records),
        samples=tuple(samples[index] for index in sorted(samples)),
        gallery=tuple(sorted(gallery.values(), key=lambda record: -(record.disagreement or 0.0))),
        gate=gates[-1] if gates else None,
        slices=tuple(slices.values()),
        curves=curves,
        robustness=tuple(robustness.values()),
        notes=tuple(dict.fromkeys(record.text for record in of_type(NoteRecord, records))),
    )


def of_type(cls: type[R], records: Iterable[Record]) -> tuple[R, ...]:
    """Return the records of type `cls`, in order."""
    return tuple(record for record in records if isinstance(record, cls))


def _epochs(records: Sequence[EpochRecord]) -> dict[str, tuple[EpochRecord, ...]]:
    found: dict[str, dict[int, EpochRecord]] = {}
    for record in records:
        found.setdefault(record.model, {})[record.epoch] = record
    return {model: tuple(epochs[epoch] for epoch in sorted(epochs)) for model, epochs in found.items()}


def _evaluations(records: Sequence[EvaluationRecord]) -> tuple[str | None, dict[str, EvaluationRecord]]:
    """Choose one split: the split on which most networks were evaluated, with ties in the order of `SPLITS`."""
    by_split: dict[str, dict[str, EvaluationRecord]] = {}
    for record in records:
        by_split.setdefault(record.split, {})[record.model] = record
    if not by_split:
        return None, {}
    order = {split: place for place, split in enumerate(SPLITS)}
    split = min(by_split, key=lambda name: (-len(by_split[name]), order.get(name, len(order))))
    return split, by_split[split]


def _latencies(records: Sequence[LatencyRecord]) -> dict[Setting, dict[str, LatencyRecord]]:
    found: dict[Setting, dict[str, LatencyRecord]] = {}
    for record in records:
        setting = Setting(
            backend=record.backend,
            device=record.device,
            threads=record.threads,
            precision=record.precision,
            input_shape=record.input_shape,
        )
        found.setdefault(setting, {})[record.model] = record
    return found
