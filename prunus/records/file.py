"""Records on disk: one JSON object a line, in `records.jsonl` of a run's folder."""

import dataclasses
import json
import os
from pathlib import Path

from prunus.errors import RecordError
from prunus.records.kinds import TYPES, Record
from prunus.records.typed import typed

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
        fields = json.loads(line)
        cls = TYPES[fields.pop("kind")]
        record: Record = typed(cls, fields, cls.__name__)
        return record
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecordError(f"{where} is not a record of this version of Prunus: {error!r}") from error
