"""Records on disk: one JSON object a line, in `records.jsonl` of a run's folder."""

import dataclasses
import json
import os
import types
import typing
from pathlib import Path
from typing import Any, ClassVar, Union

from prunus.decoding import from_json
from prunus.errors import RecordError
from prunus.records.kinds import TYPES, Record

FILE_NAME = "records.jsonl"


class Recorder:
    """Appends records to `folder/records.jsonl`; a line is on disk when `write` returns."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE_NAME
        folder.mkdir(parents=True, exist_ok=True)
        if self.path.exists() and not self.path.read_bytes().endswith(b"\n"):
            self.truncate(self.path.read_bytes().count(b"\n"))  # the machine died while it wrote the last line

    def write(self, record: Record) -> None:
        """Append `record`."""
        line = json.dumps({"kind": record.kind, **dataclasses.asdict(record)}, allow_nan=True)
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise RecordError(
                f"{self.path} cannot be written ({error.strerror}): make room, then start the same command again"
            ) from error

    def count(self) -> int:
        """Return the number of records written."""
        return len(self.path.read_text(encoding="utf-8").splitlines()) if self.path.exists() else 0

    def truncate(self, count: int) -> None:
        """Drop all but the first `count` records: what was written after the checkpoint that a run resumes from."""
        lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True) if self.path.exists() else []
        aside = self.path.with_suffix(".aside")
        with aside.open("w", encoding="utf-8") as file:
            file.writelines(lines[:count])
            file.flush()
            os.fsync(file.fileno())
        aside.replace(self.path)


class Silent(Recorder):
    """Writes nothing: the recorder of all processes of a run but the first."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE_NAME

    def write(self, record: Record) -> None:
        """Do nothing."""

    def count(self) -> int:
        """Return 0."""
        return 0

    def truncate(self, count: int) -> None:
        """Do nothing."""


def read(folder: Path) -> list[Record]:
    """Return the records of the run in `folder`, in the order in which they were written.

    Raises:
        RecordError: no records there, or a line that is not a record (its number is named).
    """
    path = Path(folder) / FILE_NAME
    if not path.is_file():
        raise RecordError(f"{path} does not exist: {folder} is not the folder of a run")
    lines = path.read_text(encoding="utf-8").splitlines()
    if not lines:
        raise RecordError(f"{path} is empty: the run in {folder} has not recorded anything yet")
    return [_parse(line, f"{path}, line {number}") for number, line in enumerate(lines, 1)]


def _parse(line: str, where: str) -> Record:
    try:
        fields = from_json(line)
        cls = TYPES[fields.pop("kind")]
        hints = typing.get_type_hints(cls)
        return cls(**{name: _coerce(value, hints[name]) for name, value in fields.items()})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecordError(f"{where} is not a record of this version of Prunus: {error!r}") from error


def _coerce(value: Any, hint: Any) -> Any:
    """JSON has lists where a record has tuples; everything else must already fit its annotation."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple and isinstance(value, list):
        inner = arguments[0]
        return tuple(_coerce(item, inner) for item in value)
    if origin in (Union, types.UnionType):
        options = [option for option in arguments if option is not type(None)]
        return None if value is None else _coerce(value, options[0])
    expected = origin or hint
    if expected is Any or expected is ClassVar:
        return value
    if expected is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, expected) or (expected is int and isinstance(value, bool)):
        raise TypeError(f"{value!r} is not a {expected.__name__}")
    return value
