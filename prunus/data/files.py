"""Reading images and masks from files, with errors that name the file."""

import contextlib
import io
import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image

from prunus.compat import torchvision, transforms
from prunus.data.listing import relative
from prunus.decoding import MIB, read_bytes
from prunus.errors import DataError, RecipeError

# What pillow raises for a file that is cut short or is no image, beside OSError.
UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


FORMATS = ("JPEG", "PNG", "PPM", "BMP", "WEBP", "TIFF", "GIF")
MOST_PIXELS, MOST_BYTES = 2**28, 1024 * MIB


def check_layout(root: Path, expected: str, *needed: str) -> None:
    """Refuse a folder that does not hold the paths `needed`; `expected` describes the layout.

    Raises:
        DataError: names what is missing, where it was looked for and what was expected there.
    """
    missing = [root, *(root / path for path in needed)]
    missing = [path for path in missing if not path.exists()]
    if missing:
        raise DataError(
            f"{missing[0]} does not exist. data.root is {root} (that is {root.resolve()}); expected there:\n{expected}"
        )


def read_image(file: Path | BinaryIO, name: str | None = None) -> np.ndarray:
    """Return the image as uint8 [H, W, 3], RGB; `name` says what an open file is.

    Grey in 16 bits is scaled to 8; transparency is left out.

    Raises:
        DataError: the file is missing, cut short or no image, or its values have no known range.
    """
    return _decode(file, "RGB", name)


def read_mask(path: Path, table: np.ndarray, meaning: str) -> np.ndarray:
    """Return the mask as uint8 [H, W], its values taken through `table`.

    Args:
        path: an 8-bit picture of one channel.
        table: int16 [256]; what a value in the file becomes, -1 where it may not occur.
        meaning: which values may occur, for the message.

    Raises:
        DataError: the file is missing, cut short, not of one channel, or holds a value that may not occur.
    """
    mask: np.ndarray = table[_decode(path, None)]
    if mask.min() < 0:
        row, column = np.argwhere(mask < 0)[0]
        value = _decode(path, None)[row, column]
        raise DataError(
            f"{path}: the mask has value {value} at row {row}, column {column}; {meaning}. "
            "Was a mask of another data set, or one of colours, put there?"
        )
    labels: np.ndarray = mask.astype(np.uint8)
    return labels


def value_table(classes: dict[int, int], ignored: Sequence[int], ignore_index: int) -> np.ndarray:
    """Return the table of `read_mask`: file value -> class by `classes`, -> `ignore_index` for `ignored`."""
    table = np.full(256, -1, np.int16)
    table[list(ignored)] = ignore_index
    for value, label in classes.items():
        table[value] = label
    return table


class FileSource:
    """Samples from pairs of files; all are brought to one size (image bilinear, mask nearest).

    Args:
        pairs: (image, mask) paths; both must exist.
        size: (height, width) to resize to.
        table: as of `read_mask`.
        meaning: as of `read_mask`.

    Raises:
        DataError: no pairs, or a file is missing; when reading, whatever `read_image` and `read_mask` refuse,
            and an image and a mask of different sizes.
    """

    def __init__(
        self, pairs: Sequence[tuple[Path, Path]], *, size: tuple[int, int], table: np.ndarray, meaning: str
    ) -> None:
        for image, mask in pairs:
            if not image.is_file():
                raise DataError(f"{image} does not exist, though it is listed (mask {mask})")
            if not mask.is_file():
                raise DataError(f"{image} has no mask: {mask} does not exist. Add it, or take the image out.")
        self.pairs, self.size, self.table, self.meaning = tuple(pairs), tuple(size), table, meaning

    def __len__(self) -> int:
        return len(self.pairs)

    def listing(self) -> Iterable[str]:
        """Yield each image and its mask."""
        images, masks = zip(*self.pairs, strict=True)
        return (f"{image} {mask}" for image, mask in zip(relative(images), relative(masks), strict=True))

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        image_path, mask_path = self.pairs[index]
        image, mask = read_image(image_path), read_mask(mask_path, self.table, self.meaning)
        if image.shape[:2] != mask.shape:
            raise DataError(
                f"{image_path} is {_shape(image)} pixels (width x height), its mask {mask_path} "
                f"{_shape(mask)}; they must be of one size"
            )
        pixels = torchvision.tv_tensors.Image(torch.from_numpy(image).movedim(-1, 0))
        return self._resize(pixels), self._resize(torchvision.tv_tensors.Mask(torch.from_numpy(mask)))

    def mask(self, index: int) -> torch.Tensor:
        """Return the mask alone: the image is not decoded."""
        mask = read_mask(self.pairs[index][1], self.table, self.meaning)
        return self._resize(torchvision.tv_tensors.Mask(torch.from_numpy(mask)))

    def _resize(self, picture: torch.Tensor) -> torch.Tensor:
        if tuple(picture.shape[-2:]) != self.size:
            # An image is filtered when it gets smaller; v2 takes a mask as nearest whatever is asked.
            picture = transforms.functional.resize(picture, list(self.size), antialias=True)
        return picture.as_subclass(torch.Tensor).contiguous()


def most_pixels() -> int:
    """Return the most pixels of an image that is read: PRUNUS_MAX_PIXELS, or what pillow thinks is no attack.

    Raises:
        RecipeError: the variable is no number.
    """
    told = os.environ.get("PRUNUS_MAX_PIXELS", "")
    if not told:
        return Image.MAX_IMAGE_PIXELS or MOST_PIXELS
    if not told.isdecimal() or len(told) > len(str(MOST_PIXELS)) + 3:
        raise RecipeError(f"PRUNUS_MAX_PIXELS is {told!r:.40}: it is the number of pixels an image may have")
    return int(told)


@contextlib.contextmanager
def _opened(source: Path | BinaryIO, name: str) -> Iterator[Image.Image]:
    """Open an image of one of `FORMATS`, none of which runs a program, and of no more pixels than are read."""
    if isinstance(source, Path):
        source = io.BytesIO(read_bytes(source, MOST_BYTES))
    before, most = Image.MAX_IMAGE_PIXELS, most_pixels()
    Image.MAX_IMAGE_PIXELS = None  # the limit is this one
    try:
        with Image.open(source, formats=FORMATS) as file:
            if file.width * file.height > most:
                raise DataError(
                    f"{name} has {file.width:,} x {file.height:,} pixels, and at most {most:,} are read: make it "
                    "smaller, or set the environment variable PRUNUS_MAX_PIXELS"
                )
            yield file
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _decode(source: Path | BinaryIO, mode: str | None, name: str | None = None) -> np.ndarray:
    """Return the pixels, converted to `mode`; None: as they are, which must be one 8-bit channel."""
    path = source if name is None else name
    try:
        with _opened(source, str(path)) as file:
            if mode is None and file.mode not in ("L", "P"):
                raise DataError(
                    f"{path}: a mask has one channel of 8 bits that holds class numbers; this one is of mode "
                    f"{file.mode}"
                )
            return np.array(file if mode is None else _eight_bit(file, str(path)).convert(mode))
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist") from error
    except UNREADABLE as error:
        raise DataError(
            f"{path} cannot be read as an image ({error}): the file is damaged, cut short or of another "
            "kind. Fetch it again."
        ) from error


def _eight_bit(file: Image.Image, name: str) -> Image.Image:
    """Return the image in a mode that pillow converts to another by scale; it would clip others at 255."""
    if file.mode.startswith("I;16"):
        return Image.fromarray(((np.array(file).astype(np.uint32) + 128) // 257).astype(np.uint8))
    if file.mode in ("I", "F"):
        raise DataError(
            f"{name}: its values are {'whole numbers' if file.mode == 'I' else 'floats'} of 32 bits (mode {file.mode}) "
            "and nobody knows which of them is white: save it with 8 bits, or as grey PNG or TIFF of 16"
        )
    # Pillow warns of a palette with transparency that loses it, though the colours are right.
    return file.convert("RGBA") if file.mode == "P" and "transparency" in file.info else file


def _shape(picture: np.ndarray) -> str:
    return f"{picture.shape[1]} x {picture.shape[0]}"
