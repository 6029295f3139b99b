"""Reading masks from files: class numbers in one channel, or colours that stand for classes."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from prunus.data.decode import MAX_PIXELS, decode
from prunus.errors import DataError

Colours = Mapping[tuple[int, int, int], int]  # (red, green, blue), 0 to 255, -> class or ignore_index


def read_mask(
    path: Path, table: np.ndarray, meaning: str, colours: Colours | None = None, max_pixels: int = MAX_PIXELS
) -> np.ndarray:
    """Return the mask as uint8 [H, W], its values mapped by `table` or `colours`.

    An image with a palette is read by colour if all of its colours are known, otherwise by palette index.

    Args:
        path: an 8-bit image with one channel, or a colour image if `colours` is given.
        table: int16 [256], file value -> class or ignore_index; -1 for a value that is not allowed.
        meaning: the allowed values, for the error message.
        colours: colour -> class or ignore_index; None refuses colour images.
        max_pixels: a larger mask is refused before it is decoded.

    Raises:
        DataError: the file is missing, truncated, has other channels, or holds a value or colour that is not allowed.
    """
    stored = decode(path, lambda picture: _stored(picture.pixels, path, colours), max_pixels=max_pixels)
    labels = table[stored] if stored.ndim == 2 else _by_colour(stored, colours or {})
    if labels.min() < 0:
        row, column = np.argwhere(labels < 0)[0]
        value = stored[row, column]
        found = f"value {value}" if stored.ndim == 2 else f"colour {tuple(value.tolist())}"
        raise DataError(
            f"{path}: the mask has {found} at row {row}, column {column}; {meaning}. Was a mask of another data set, "
            "of other colours, or one that was resized or saved as JPEG, put there?"
        )
    taken: np.ndarray = labels.astype(np.uint8)
    return taken


def value_table(classes: dict[int, int], ignored: Sequence[int], ignore_index: int) -> np.ndarray:
    """Return a table for `read_mask` that maps values by `classes`, and `ignored` values to `ignore_index`."""
    table = np.full(256, -1, np.int16)
    table[list(ignored)] = ignore_index
    for value, label in classes.items():
        table[value] = label
    return table


def _stored(file: Image.Image, path: Path, colours: Colours | None) -> np.ndarray:
    """Return the mask's stored values, uint8 [H, W], or its colours, uint8 [H, W, 3]."""
    if file.mode == "L" or (file.mode == "P" and not _is_coloured(file, colours)):
        return np.array(file)
    if colours is not None and file.mode in ("P", "RGB", "RGBA"):
        return np.array(file.convert("RGBA").convert("RGB"))
    raise DataError(
        f"{path}: a mask has one channel of 8 bits that holds class numbers; this one is of mode {file.mode}"
        + (" and its colours have no known classes" if file.mode.startswith("RGB") else "")
    )


def _is_coloured(file: Image.Image, colours: Colours | None) -> bool:
    """Whether an image uses only known palette colours; a grey palette that equals its indices holds class numbers."""
    palette = np.array(file.getpalette("RGB"), np.uint8).reshape(-1, 3)
    used = np.unique(np.array(file))
    if not colours or used.max(initial=0) >= len(palette):
        return False
    grey = bool((palette[used] == used[:, None]).all())
    return not grey and all(tuple(colour) in colours for colour in palette[used].tolist())


def _by_colour(pixels: np.ndarray, colours: Colours) -> np.ndarray:
    """Return the class of each pixel's colour, int16 [H, W]; -1 for an unknown colour."""
    codes = _codes(np.array(list(colours), np.uint8).reshape(-1, 3))
    order = codes.argsort()
    wanted = _codes(pixels)
    place = order[np.searchsorted(codes, wanted, sorter=order).clip(max=len(codes) - 1)]
    labels: np.ndarray = np.where(codes[place] == wanted, np.array(list(colours.values()), np.int16)[place], -1)
    return labels


def _codes(colours: np.ndarray) -> np.ndarray:
    """Return each colour of [..., 3] as one integer, [...]."""
    codes: np.ndarray = colours.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)
    return codes
