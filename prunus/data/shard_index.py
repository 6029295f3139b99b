"""The index of a tar shard: offset, size and class of each image, checked against the shard before use."""

import dataclasses
import io
import json
import os
import tarfile
from pathlib import Path, PurePosixPath
from typing import Any, Self

import numpy as np

from prunus.data.decode import ENDINGS
from prunus.data.listing import is_hidden
from prunus.decoding import DecodingError, from_json, read_text
from prunus.errors import DataError
from prunus.interrupt import check

MOST_DIGITS = 20  # of a class number
COLUMNS = ("offsets", "sizes", "labels")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardIndex:
    """The positions of the images in a shard, int64 arrays with one entry per image, and the shard's size and time.

    Attributes:
        offsets: where each image's bytes begin in the shard.
        sizes: of the images, in bytes.
        labels: class of each image.
        bytes: size of the shard; None in an index written by an earlier version.
        modified_ns: time of the last change of the shard.
    """

    offsets: np.ndarray
    sizes: np.ndarray
    labels: np.ndarray
    bytes: int | None
    modified_ns: int | None

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return the index in the file `path`.

        Raises:
            DataError: the file does not hold a valid index.
        """
        try:
            content = from_json(read_text(path))
        except (OSError, DecodingError) as error:
            raise DataError(f"{path} is not a valid index ({error}): delete it, and it will be rebuilt") from error
        if problem := _problem(content):
            raise DataError(f"{path} is not a valid index ({problem}): delete it, and it will be rebuilt")
        arrays = {name: np.asarray(content[name], np.int64).reshape(-1) for name in COLUMNS}
        return cls(**arrays, bytes=content.get("bytes"), modified_ns=content.get("modified_ns"))

    def is_of(self, shard: os.stat_result, *, fetched: bool) -> bool:
        """Whether this index matches the current shard; the time of a fetched shard is not compared."""
        return self.bytes == shard.st_size and (fetched or self.modified_ns == shard.st_mtime_ns)


def _problem(content: Any) -> str | None:
    """Return the defect of an index's content; None if it is valid."""
    if not isinstance(content, dict) or any(not isinstance(content.get(name), list) for name in COLUMNS):
        return f"it must hold the lists {', '.join(COLUMNS)}"
    if len({len(content[name]) for name in COLUMNS}) > 1:
        return "its lists are of different lengths"
    for name in COLUMNS:
        if any(type(value) is not int or not 0 <= value < 2**62 for value in content[name]):
            return f"{name} holds a value that is not a non-negative integer"
    size = content.get("bytes")
    for name, value in (("bytes", size), ("modified_ns", content.get("modified_ns"))):
        if value is not None and (type(value) is not int or abs(value) >= 2**63):
            return f"{name} is {value!r:.40}"
    ends = (start + length for start, length in zip(content["offsets"], content["sizes"], strict=True))
    return "an image ends beyond the end of the shard" if size is not None and max(ends, default=0) > size else None


def write_index(shard: Path) -> Path:
    """Write the index of a shard beside it and return its path.

    Raises:
        DataError: the file is not a tar, an image (named in the message) has no class, or the index cannot be written.
    """
    columns = _columns(shard)
    path = shard.with_suffix(".json")
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        aside.write_text(json.dumps(columns), encoding="utf-8")
        aside.replace(path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise DataError(
            f"{path}, the index of a shard, cannot be written ({error.strerror}): make room or allow writing"
        ) from error
    return path


def _columns(shard: Path) -> dict[str, Any]:
    places, labels = dict[str, tuple[int, int]](), dict[str, int]()
    try:
        status = shard.stat()
        with _Bounded(io.FileIO(shard), status.st_size) as file, tarfile.open(fileobj=file, mode="r:") as archive:
            end = -1
            for member in archive:
                check()
                if member.size < 0 or member.offset <= end or member.offset_data + member.size > status.st_size:
                    raise ValueError(f"{member.name!r:.60} is not in it")
                end = member.offset
                ending = PurePosixPath(member.name).suffix
                key = member.name.removesuffix(ending)
                if is_hidden(PurePosixPath(member.name)):
                    continue
                if ending.lower() in ENDINGS:
                    places[key] = (member.offset_data, member.size)
                elif ending == ".cls" and (content := archive.extractfile(member)) is not None:
                    labels[key] = int(content.read(MOST_DIGITS).decode("utf-8-sig"))
    except (tarfile.TarError, OSError, EOFError, ValueError, OverflowError, RecursionError) as error:
        raise DataError(f"{shard} cannot be read as a shard ({error}): fetch it again") from error
    if missing := places.keys() - labels.keys():
        raise DataError(f"{shard}: {min(missing)} has no class: expected {min(missing)}.cls beside the image")
    if wrong := [key for key in places if not 0 <= labels[key] < 2**62]:
        raise DataError(f"{shard}: {wrong[0]!r} is of the class {labels[wrong[0]]}: classes are numbered from zero")
    return {
        "keys": list(places),
        "offsets": [offset for offset, _ in places.values()],
        "sizes": [size for _, size in places.values()],
        "labels": [labels[key] for key in places],
        "bytes": status.st_size,
        "modified_ns": status.st_mtime_ns,
    }


class _Bounded(io.BufferedReader):
    """A file whose reads are limited to its size, since `tarfile` allocates as much memory as a header claims."""

    def __init__(self, raw: io.FileIO, size: int) -> None:
        super().__init__(raw)
        self.size = size

    def read(self, size: int | None = -1, /) -> bytes:
        """Read at most `size` bytes."""
        left = max(0, self.size - self.tell())
        return super().read(left if size is None or size < 0 else min(size, left))
