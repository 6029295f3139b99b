"""Records of a run: small typed records, one JSON object per line in `records.jsonl`.

All output (progress, table, TensorBoard, report) is read from these, so only recorded facts are shown. A record is
plain data: numbers, strings, tuples and dictionaries of them.
"""

from prunus.records.file import FILE_NAME, Recorder, Silent, lines, read, readable
from prunus.records.gate import CurveRecord, GateRecord, RobustnessRecord, SliceRecord
from prunus.records.kinds import (
    EXACT,
    EditRecord,
    EpochRecord,
    EvaluationRecord,
    FamilyRecord,
    FormRecord,
    LatencyRecord,
    NoteRecord,
    ParityRecord,
    QuantizationRecord,
    Record,
    RemovalRecord,
    RunRecord,
    SampleRecord,
    ShrinkRecord,
    WidthsRecord,
)
from prunus.records.types import TYPES

__all__ = [
    "EXACT",
    "FILE_NAME",
    "TYPES",
    "CurveRecord",
    "EditRecord",
    "EpochRecord",
    "EvaluationRecord",
    "FamilyRecord",
    "FormRecord",
    "GateRecord",
    "LatencyRecord",
    "NoteRecord",
    "ParityRecord",
    "QuantizationRecord",
    "Record",
    "Recorder",
    "RemovalRecord",
    "RobustnessRecord",
    "RunRecord",
    "SampleRecord",
    "ShrinkRecord",
    "Silent",
    "SliceRecord",
    "WidthsRecord",
    "lines",
    "read",
    "readable",
]
