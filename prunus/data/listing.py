"""The file list of a data set, one line per sample: data sets with equal lists count as the same."""

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePath
from typing import Any, Protocol, runtime_checkable

from prunus.decoding import DecodingError, read_text
from prunus.errors import DataError


@runtime_checkable
class Listed(Protocol):
    """A source that can list its files."""

    def listing(self) -> Iterable[str]:
        """Yield a line for each sample: its file, relative to the data set, and its label."""
        ...


@runtime_checkable
class Conditioned(Protocol):
    """A source that knows the conditions under which an image was taken."""

    def conditions(self, index: int) -> tuple[str, ...]:
        """Return the conditions of an image, e.g. ("night", "rain")."""
        ...


def conditions_at(source: Any, index: int) -> tuple[str, ...]:
    """Return the conditions of an image; () if the source does not know them."""
    return source.conditions(index) if isinstance(source, Conditioned) else ()


def listing_of(source: Any) -> Iterable[str]:
    """Return the listing of a source, empty if it has none."""
    return source.listing() if isinstance(source, Listed) else ()


def is_hidden(path: PurePath) -> bool:
    """Whether a path inside a data set belongs to another program's hidden files, which are never read.

    Examples: macOS's "._name" files on foreign disks and in archives, its folder __MACOSX, .ipynb_checkpoints.
    """
    return any(part == "__MACOSX" or (part[:1] == "." and part not in (".", "..")) for part in path.parts)


def read_lines(path: Path) -> list[tuple[int, str]]:
    """Return the non-blank lines of a text file, numbered from 1; a byte-order mark is skipped.

    Raises:
        DataError: the file cannot be read, or is not UTF-8.
    """
    try:
        lines = read_text(path).splitlines()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from error
    except DecodingError as error:
        raise DataError(f"{path} cannot be read as a list ({error}): save it as text in UTF-8") from error
    return [(number, line) for number, line in enumerate(lines, 1) if line.strip()]


def relative(paths: Sequence[Path]) -> list[str]:
    """Return the paths relative to their common folder, so that moving a data set does not change its list."""
    folders = [path.parts[:-1] for path in paths]
    pairs = zip(min(folders, default=()), max(folders, default=()), strict=False)  # their common prefix is that of all
    common = Path(*(one for one, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)))
    return [str(path.relative_to(common)) for path in paths]
