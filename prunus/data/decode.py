"""Decode image files: allowed formats and sizes, EXIF orientation, conversion to 8 bits."""

import contextlib
import dataclasses
import io
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from prunus.data.stored import UNREADABLE, altered, check_pages, white_level
from prunus.decoding import MIB, DecodingError, read_bytes, regular_file
from prunus.errors import DataError

# The supported formats, with their file endings. None of them runs a program, as EPS does.
FORMATS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png", ".apng"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    "BMP": (".bmp",),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "GIF": (".gif",),
}
ENDINGS = tuple(ending for endings in FORMATS.values() for ending in endings)
MAX_BYTES = 1024 * MIB  # per file
MAX_PIXELS = 2**30 // 12  # the default: a quarter of a gigabyte as RGB, from where on pillow itself warns
FAINT = 16  # an image darker than white / 16 has at most 16 of 256 shades, all nearly black

Turn = Image.Transpose
TURNS = {
    2: Turn.FLIP_LEFT_RIGHT,
    3: Turn.ROTATE_180,
    4: Turn.FLIP_TOP_BOTTOM,
    5: Turn.TRANSPOSE,
    6: Turn.ROTATE_270,
    7: Turn.TRANSVERSE,
    8: Turn.ROTATE_90,
}  # EXIF orientation -> the transpose that makes the stored pixels upright


def _identified(source: BinaryIO) -> Image.Image:
    """Return the image in `source`, in one of `FORMATS`, not yet decoded.

    Equivalent to `Image.open(source, formats=FORMATS)`, which other packages replace (Ultralytics' version installs a
    package when a file is not an image).

    Raises:
        UnidentifiedImageError: the image has none of these formats.
    """
    Image.init()
    source.seek(0)
    start = source.read(16)
    for name in FORMATS:
        if name not in Image.OPEN:  # pillow was built without this format
            continue
        factory, accepts = Image.OPEN[name]
        result = accepts is None or accepts(start)
        if isinstance(result, str) or not result:
            continue
        source.seek(0)
        with contextlib.suppress(SyntaxError, IndexError, TypeError, struct.error):  # only the start looks like it
            return factory(source, name)
    raise UnidentifiedImageError(f"it is not an image of {', '.join(FORMATS)}")


@contextlib.contextmanager
def _opened(source: Path | BinaryIO, name: str, max_pixels: int) -> Iterator[Image.Image]:
    """Open an image in one of `FORMATS` with at most `max_pixels` pixels."""
    if isinstance(source, Path):
        source = io.BytesIO(read_bytes(source, MAX_BYTES))
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # `max_pixels` is the limit instead
    try:
        with _identified(source) as file:
            if file.width * file.height > max_pixels:
                raise DataError(
                    f"{name} has {file.width:,} x {file.height:,} pixels, and at most {max_pixels:,} are read: make it "
                    "smaller, or set data.max_pixels"
                )
            yield file
    finally:
        Image.MAX_IMAGE_PIXELS = before


@dataclasses.dataclass(frozen=True)
class Picture:
    """A decoded image in its EXIF orientation."""

    pixels: Image.Image
    name: str  # of the file
    white: int | None  # the white level of unsigned values of more than 8 bits; None for others
    altered: str  # why the values are not the stored ones; "" if they are

    def to_rgb(self) -> np.ndarray:
        """Return the pixels as uint8 [H, W, 3]; values of 12 or 16 bits are scaled, transparency is dropped.

        Raises:
            DataError: the value range is unknown, or all values of more than 8 bits would become black.
        """
        pixels = np.array(self._eight_bit().convert("RGB"))
        if self.white is not None:
            # Pillow has already reduced 16-bit colour images to 8 bits.
            brightest = int(np.array(self.pixels).max()) * (1 if self.pixels.mode[0] == "I" else 256)
            bits, faint = self.white.bit_length(), (self.white + 1) // FAINT
            if 0 < brightest < faint:
                raise DataError(
                    f"{self.name}: its {bits}-bit values are all below {faint:,} of {self.white:,}, so it would come "
                    "out black. The white level of its sensor (8, 10 or 12 bits?) is unknown: save it with 8 bits, or "
                    "scaled to 16"
                )
        return pixels

    def _eight_bit(self) -> Image.Image:
        """Return the image in a mode that pillow converts by scaling; it would clip other modes at 255."""
        file = self.pixels
        if self.white is not None and file.mode[0] == "I":
            scaled = (np.array(file).astype(np.uint32) * 255 + self.white // 2) // self.white
            return Image.fromarray(scaled.astype(np.uint8))
        if file.mode[0] in "IF":
            raise DataError(
                f"{self.name}: its values are {'floats' if file.mode == 'F' else 'whole numbers'} of mode "
                f"{file.mode}, whose white level is unknown: save it with 8 bits, or as grey PNG or TIFF of 16"
            )
        # Pillow warns when a palette loses its transparency, although the colours are right.
        return file.convert("RGBA") if file.mode == "P" and "transparency" in file.info else file


def decode(
    source: Path | BinaryIO,
    convert: Callable[[Picture], np.ndarray],
    name: str | None = None,
    max_pixels: int = MAX_PIXELS,
) -> np.ndarray:
    """Decode an image and return it through `convert`.

    Args:
        source: a path or an open file.
        convert: maps the decoded picture to the result.
        name: the name of an open file, for errors.
        max_pixels: a larger image is refused before it is decoded.

    Raises:
        DataError: the file is missing, not readable by this user, too large, truncated or not an image, or is a TIFF
            of several pages of one size. Of an animation the first frame is taken.
    """
    path = str(source if name is None else name)
    with _named(path), _opened(source, path, max_pixels) as file:
        check_pages(file, path)
        white, changed = white_level(file), altered(file)  # loading discards this information
        return convert(Picture(_upright(file), path, white, changed))


@contextlib.contextmanager
def _named(path: str) -> Iterator[None]:
    """Turn an exception from reading the image `path` into a `DataError` that names it."""
    try:
        yield
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist") from error
    except DecodingError as error:
        raise DataError(f"{path} is not read: {error}; put a smaller or an ordinary file there") from error
    except UNREADABLE as error:
        if isinstance(error, OSError) and error.strerror:  # from the file system; pillow's own errors have none
            raise DataError(f"{path} cannot be read ({error.strerror}): allow it, or remove the file") from error
        raise DataError(
            f"{path} cannot be read as an image ({error}): the file is damaged, cut short or of another "
            "kind. Fetch it again."
        ) from error


def dimensions(path: Path, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Return the (width, height) of an image in its EXIF orientation, reading only its header.

    Raises:
        DataError: as `decode`.
    """
    with _named(str(path)), regular_file(path) as file, _opened(file, str(path), max_pixels) as image:
        # Pillow states the size of a TIFF in its orientation.
        turned = image.format != "TIFF" and _orientation(image) in (5, 6, 7, 8)
        return (image.height, image.width) if turned else image.size


def _orientation(file: Image.Image) -> int:
    """Return the EXIF orientation of an image; unreadable tags are ignored."""
    try:
        return int(file.getexif().get(ExifTags.Base.Orientation, 1))
    except UNREADABLE:
        return 1


def _upright(file: Image.Image) -> Image.Image:
    """Return the image in its EXIF orientation."""
    file.load()
    turn = TURNS.get(_orientation(file))
    return file if turn is None else file.transpose(turn)
