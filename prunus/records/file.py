"""Records on disk: one JSON object per line, in `records.jsonl` of a run's folder."""

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

from prunus.decoding import MIB, DecodingError, from_json, read_bytes
from prunus.errors import RecordError
from prunus.records.kinds import Record
from prunus.records.typed import typed
from prunus.records.types import TYPES
from prunus.writing import append, write_whole

FILE_NAME = "records.jsonl"
MOST = 1024 * MIB


class Recorder:
    """Append records to `folder/records.jsonl`; a line is on disk when `write` returns.

    Raises:
        RecordError: the file cannot be written; says what to do.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE_NAME
        with _writable(self.path):
            folder.mkdir(parents=True, exist_ok=True)
            if self.path.exists() and not self._content().endswith(b"\n"):
                self.truncate(self.count())  # the machine died while the last line was being written

    def write(self, record: Record) -> None:
        """Append `record`."""
        line = json.dumps({"kind": record.kind, **dataclasses.asdict(record)}, allow_nan=True)
        with _writable(self.path):
            append(self.path, f"{line}\n".encode())

    def count(self) -> int:
        """Return the number of records written."""
        return self._content().count(b"\n")

    def truncate(self, count: int) -> None:
        """Keep only the first `count` records; later ones were written after the checkpoint that a run resumes from."""
        lines = self._content().splitlines(keepends=True)
        with _writable(self.path):
            write_whole(self.path, b"".join(lines[:count]))

    def _content(self) -> bytes:
        if not self.path.exists():
            return b""
        try:
            return read_bytes(self.path, MOST, follow=False)
        except (OSError, DecodingError) as error:
            raise RecordError(f"{self.path} cannot be read ({error}): remove it, or choose another folder") from error


@contextlib.contextmanager
def _writable(path: Path) -> Iterator[None]:
    """Raise `RecordError`, with a remedy, where `path` cannot be written."""
    try:
        yield
    except OSError as error:
        raise RecordError(
            f"{path} cannot be written ({error.strerror}): make room, then start the same command again"
        ) from error


class Silent(Recorder):
    """A recorder that writes nothing, for all processes of a run but the first."""

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
        RecordError: there are no records, or a line is not a record (names the line's number).
    """
    found, problems = readable(folder)
    if problems:
        raise RecordError(problems[0])
    return found


def readable(folder: Path) -> tuple[list[Record], list[str]]:
    """Return the records of the run in `folder`, and the problem of each line that is not a record.

    Raises:
        RecordError: there are no records.
    """
    every = lines(folder)
    return [each for each in every if isinstance(each, Record)], [each for each in every if isinstance(each, str)]


def lines(folder: Path) -> list[Record | str]:
    """Return each line's record, or its problem as a string.

    Raises:
        RecordError: there are no records.
    """
    path = Path(folder) / FILE_NAME
    if not path.is_file():
        raise RecordError(f"{path} does not exist: {folder} is not the folder of a run")
    try:
        content = read_bytes(path, MOST, follow=False)
    except (OSError, DecodingError) as error:
        raise RecordError(f"{path} cannot be read: {error}") from error
    if not content:
        raise RecordError(f"{path} is empty: the run in {folder} has not recorded anything yet")
    found = list[Record | str]()
    for number, line in enumerate(content.removesuffix(b"\n").split(b"\n"), 1):
        try:
            found.append(_parse(line, f"{path}, line {number}"))
        except RecordError as error:
            found.append(str(error))
    return found


def _parse(line: bytes, where: str) -> Record:
    try:
        fields = from_json(line.decode("utf-8"))
        cls = TYPES[fields.pop("kind")]
        record: Record = typed(cls, fields, cls.__name__)
        record.check()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecordError(f"{where} is not a record of this version of Prunus: {error!r:.300}") from error
    return record
