"""What a source reads, a line for each sample: two data sets with equal lists are taken for the same."""

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Listed(Protocol):
    """A source that can say what it reads."""

    def listing(self) -> Iterable[str]:
        """Yield a line for each sample: its file, relative to the data set, and its label."""
        ...


def listing_of(source: Any) -> Iterable[str]:
    """Return the listing of a source; nothing of one that has none."""
    return source.listing() if isinstance(source, Listed) else ()


def relative(paths: Sequence[Path]) -> list[str]:
    """Return paths relative to the folder that holds them all: a data set may be moved."""
    folders = [path.parts[:-1] for path in paths]
    pairs = zip(min(folders, default=()), max(folders, default=()), strict=False)  # what these share, all share
    common = Path(*(one for one, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)))
    return [str(path.relative_to(common)) for path in paths]
