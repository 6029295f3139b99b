"""Files and text from outside as plain data, JSON here and YAML in `yaml_text`, within limits on kind and size.

Their authors are not trusted: a decoder here takes bounded memory and time, and raises only `DecodingError`
and, for a file, `OSError`. The result is dictionaries, lists, strings, numbers, booleans and None; the caller
checks whether it is what it needs.
"""

import contextlib
import dataclasses
import errno
import json
import os
import stat
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

MIB = 2**20


class DecodingError(ValueError):
    """Text that is not JSON or YAML, or exceeds a limit; names the problem and, where known, the line."""

    def __init__(self, problem: str, line: int | None = None) -> None:
        super().__init__(problem if line is None else f"{problem} (line {line})")
        self.problem, self.line = problem, line


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """The limits on what is read.

    Attributes:
        size: of the text, in bytes or characters.
        depth: of nested containers.
        digits: of an integer.
        items: of all containers together, with YAML's aliases expanded.
    """

    size: int = 256 * MIB
    depth: int = 100
    digits: int = 40
    items: int = 20_000_000


DATA = Limits()  # for what programs write: plans, states, records, indexes
SETTINGS = Limits(size=MIB // 4, items=100_000)  # for what people write: recipes and overrides


def read_bytes(path: Path, most: int = DATA.size, *, follow: bool = True) -> bytes:
    """Return the content of a regular file; pipes and devices, which may block or never end, are not read.

    Args:
        most: bytes.
        follow: whether `path` itself may be a symbolic link.

    Raises:
        OSError: there is no such file, or it cannot be read.
        DecodingError: it is not a regular file, or it is too large.
    """
    with regular_file(path, follow=follow) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise DecodingError(f"it has {size:,} bytes, and at most {most:,} are read")
        return file.read(most)


@contextlib.contextmanager
def regular_file(path: Path, *, follow: bool = True) -> Iterator[BinaryIO]:
    """Open a regular file, to read parts of it.

    Raises:
        OSError, DecodingError: as `read_bytes`.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY | (0 if follow else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        if error.errno == errno.ELOOP and not follow:
            raise DecodingError("it is a symbolic link, which is not followed") from error
        raise
    except ValueError as error:  # a NUL, or text that no file system can store
        raise DecodingError(f"no file can have this name ({error})") from error
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise DecodingError("it is not a regular file")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            yield file
    finally:
        os.close(descriptor)


def read_text(path: Path, most: int = DATA.size, *, follow: bool = True) -> str:
    """Return the text of a regular file in UTF-8, without the byte-order mark that some editors write.

    Raises:
        OSError, DecodingError: as `read_bytes`; or the file is not UTF-8.
    """
    try:
        return read_bytes(path, most, follow=follow).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DecodingError(f"it is not UTF-8 text: {error.reason} at byte {error.start}") from error


def from_json(text: str, limits: Limits = DATA, *, without: Collection[str] = ()) -> Any:
    """Return the value of JSON `text`; NaN and the infinities are accepted as numbers.

    Args:
        text: the document.
        limits: of the result.
        without: keys that are dropped from every object while it is read, which saves their memory.

    Raises:
        DecodingError: it is not JSON, or exceeds the limits.
    """
    check_size(text, limits)

    def whole(digits: str) -> int:
        if len(digits) > limits.digits:
            raise DecodingError(f"a whole number of {len(digits):,} digits, and at most {limits.digits} are read")
        return int(digits)

    def kept(item: dict[str, Any]) -> dict[str, Any]:
        for key in without:
            item.pop(key, None)
        return item

    try:
        value = json.loads(text, parse_int=whole, object_hook=kept if without else None)
    except DecodingError:
        raise
    except RecursionError as error:
        raise DecodingError(f"it is nested more than {limits.depth} deep") from error
    except ValueError as error:
        raise DecodingError(f"it is not valid JSON: {error}") from error
    check_value(value, limits)
    return value


def check_size(text: str, limits: Limits) -> None:
    """Refuse a text that is too long."""
    if len(text) > limits.size:
        raise DecodingError(f"it has {len(text):,} characters, and at most {limits.size:,} are read")


def check_value(value: Any, limits: Limits) -> None:
    """Refuse what is nested too deep, too large, or not plain data."""
    level, depth, items, most = [value], 0, 0, 10**limits.digits
    while level:
        if depth > limits.depth:
            raise DecodingError(f"it is nested more than {limits.depth} deep")
        items += len(level)
        if items > limits.items:
            raise DecodingError(f"it holds more than {limits.items:,} items")
        inner = list[Any]()
        for each in level:
            if isinstance(each, Mapping):
                inner += [*each, *each.values()]
            elif isinstance(each, list):
                inner += each
            elif type(each) is int:
                if abs(each) >= most:
                    raise DecodingError(f"it holds a whole number of more than {limits.digits} digits")
            elif each is not None and type(each) not in (str, float, bool):
                raise DecodingError(f"it holds a {type(each).__name__}: numbers, text, lists and mappings are read")
        level, depth = inner, depth + 1
