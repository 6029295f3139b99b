"""Reading masks from files: class numbers in one channel, or colours that stand for classes."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from prunus.data.decode import MAX_PIXELS, Picture, decode
from prunus.errors import DataError

Colours = Mapping[tuple[int, int, int], int]  # (red, green, blue), 0 to 255, -> class or ignore_index


def read_mask(
    path: Path, table: np.ndarray, meaning: str, colours: Colours | None = None, max_pixels: int = MAX_PIXELS
) -> np.ndarray:
    """Return the mask as uint8 [H, W], its values mapped by `table` or `colours`.

    An image with a palette is read by colour if all of its colours are known, and by palette index if none of them is,
    or if its palette is that of Pascal VOC or of grey.

    Args:
        path: an 8-bit image with one channel, or a colour image if `colours` is given.
        table: int16 [256], file value -> class or ignore_index; -1 for a value that is not allowed.
        meaning: the allowed values, for the error message.
        colours: colour -> class or ignore_index; None refuses colour images.
        max_pixels: a larger mask is refused before it is decoded.

    Raises:
        DataError: the file is missing, truncated, has other channels, holds a value or colour that is not allowed, or
            its format changes or scales values; or the palette has known colours and others.
    """
    stored = decode(path, lambda picture: _stored(picture, path, colours), max_pixels=max_pixels)
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


def _stored(picture: Picture, path: Path, colours: Colours | None) -> np.ndarray:
    """Return the mask's stored values, uint8 [H, W], or its colours, uint8 [H, W, 3]."""
    file = picture.pixels
    if picture.altered:
        raise DataError(f"{path}: {picture.altered}, and a mask holds exact class numbers: save it as PNG with 8 bits")
    if file.mode == "L" or (file.mode == "P" and not _is_coloured(file, path, colours)):
        return np.array(file)
    if colours is not None and file.mode in ("P", "RGB", "RGBA"):
        return np.array(file.convert("RGBA").convert("RGB"))
    raise DataError(
        f"{path}: a mask has one channel of 8 bits that holds class numbers; this one is of mode {file.mode}"
        + (" and its colours have no known classes" if file.mode.startswith("RGB") else "")
    )


def _is_coloured(file: Image.Image, path: Path, colours: Colours | None) -> bool:
    """Whether a palette's colours stand for classes, instead of making class numbers visible."""
    palette = np.array(file.getpalette("RGB"), np.uint8).reshape(-1, 3)
    used = np.unique(np.array(file))
    if not colours or used.max(initial=0) >= len(palette):
        return False
    grey = bool((palette[used] == used[:, None]).all())
    if grey or (len(palette) > 2 and np.array_equal(palette, VOC[: len(palette)])):
        return False
    seen = [tuple(colour) for colour in palette[used].tolist()]
    known, unknown = ([one for one in seen if (one in colours) is told] for told in (True, False))
    if unknown and set(known) - {BLACK}:
        raise DataError(
            f"{path}: its palette has the colours {known[-1]} of a class and {unknown[0]} of none, so it may hold "
            "class numbers or colours: save the class numbers in grey, or correct the colours"
        )
    return not unknown


def _voc_palette() -> np.ndarray:
    """Return Pascal VOC's 256 colours, uint8 [256, 3]: the bits of an index go to red, green and blue in turn."""
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
    bits = np.pad(bits, ((0, 0), (0, 1))).reshape(256, 3, 3)  # [index, bit of the colour from the highest, channel]
    colours: np.ndarray = (bits * np.array([128, 64, 32], np.uint8)[:, None]).sum(1, dtype=np.uint8)
    return colours


BLACK = (0, 0, 0)
VOC = _voc_palette()


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
