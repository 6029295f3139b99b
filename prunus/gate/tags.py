"""The conditions of each image, from the data or from a CSV file."""

import csv
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
    places = _places(names)
    result = dict[int, tuple[str, ...]]()
    named, unknown = dict[int, str](), list[str]()
    for number, line in read_lines(Path(tags)):
        name, *own = _cells(line, f"{tags}, line {number}")
        found = places.get(name)
        if found is None:
            unknown.append(name)
            continue
        if len(paths := {names[place] for place in found}) > 1:
            raise DataError(f"{tags}, line {number}: {name} may be {' or '.join(sorted(paths)[:2])}: write the path")
        if found[0] in named:
            before = named[found[0]]
            what = f"{name} is named twice" if name == before else f"{before} and {name} are the same image"
            raise DataError(f"{tags}, line {number}: {what}: name it once")
        named[found[0]] = name
        result |= dict.fromkeys(found, tuple(dict.fromkeys(tag for tag in own if tag)))
    if unknown:
        raise DataError(
            f"{tags} names {len(unknown)} images that are not in the split, {', '.join(unknown[:3])} among them; write "
            f"a file's name or its path, as in {names[0]}, and no header"
        )
    if not any(result.values()):
        raise DataError(
            f"{tags} names no condition of any image: write one line per image, as in {names[0]},night,rain"
        )
    return [result.get(number, ()) for number in range(len(split))]


def _cells(line: str, where: str) -> list[str]:
    """Return the cells of a line of CSV, which may be in double quotes."""
    try:
        return [cell.strip() for cell in next(csv.reader([line], skipinitialspace=True, strict=True))]
    except csv.Error as error:
        raise DataError(
            f"{where}: {line!r:.60} is not a line of CSV ({error}): file,tag,tag, in double quotes"
        ) from error


def _names(split: Split) -> list[str]:
    source: Any = getattr(split, "source", None)
    return [found[1] if (found := IMAGE.match(line)) else line for line in listing_of(source)]


def _places(names: list[str]) -> dict[str, list[int]]:
    """Return the numbers of each image by its path and by its file name; a list may hold an image several times."""
    places = dict[str, list[int]]()
    for number, name in enumerate(names):
        for key in {name, Path(name).name}:
            places.setdefault(key, []).append(number)
    return places | {name: [number for number in places[name] if names[number] == name] for name in set(names)}
