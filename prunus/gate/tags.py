"""The conditions of each image, from the data or from a CSV file."""

import re
from pathlib import Path
from typing import Any

from prunus.data.decode import ENDINGS
from prunus.data.interface import Split
from prunus.data.listing import listing_of, read_lines
from prunus.errors import DataError

IMAGE = re.compile(rf"(.+?(?:{'|'.join(map(re.escape, ENDINGS))}))(?: |$)", re.IGNORECASE)  # in a line of a listing


def conditions_of(split: Split, tags: Path | None) -> list[tuple[str, ...]]:
    """Return the conditions of each image of the split, from the file `tags` if it is given.

    Raises:
        DataError: the file names no condition, an image twice or one not in the split; or the images are not files.
    """
    if tags is None:
        return [split.conditions(index) for index in range(len(split))]
    names = _names(split)
    if len(names) != len(split):
        raise DataError(f"{tags} names images by their files, and {type(split).__name__} reads none")
    found = dict[str, tuple[str, ...]]()
    for number, line in read_lines(Path(tags)):
        name, *own = (cell.strip() for cell in line.split(","))
        if name in found:
            raise DataError(f"{tags}, line {number}: {name} is named twice")
        found[name] = tuple(tag for tag in own if tag)
    places = _places(names)
    if unknown := [name for name in found if name not in places]:
        raise DataError(
            f"{tags} names {len(unknown)} images that are not in the split, {', '.join(unknown[:3])} among them; write "
            f"a file's name or its path, as in {names[0]}, and no header"
        )
    if not any(found.values()):
        raise DataError(
            f"{tags} names no condition of any image: write one line per image, as in {names[0]},night,rain"
        )
    numbers = [places[name] for name in found]
    if twice := [name for name in found if numbers.count(places[name]) > 1]:
        raise DataError(f"{tags}: {' and '.join(twice[:2])} are the same image: name it once")
    result: list[tuple[str, ...]] = [()] * len(split)
    for name, named in found.items():
        result[places[name]] = named
    return result


def _names(split: Split) -> list[str]:
    source: Any = getattr(split, "source", None)
    return [found[1] if (found := IMAGE.match(line)) else line for line in listing_of(source)]


def _places(names: list[str]) -> dict[str, int]:
    """Return the number of each image by its path, and by its file name if that is unique."""
    places = {name: number for number, name in enumerate(names)}
    short = [Path(name).name for name in names]
    return {name: number for number, name in enumerate(short) if short.count(name) == 1} | places
