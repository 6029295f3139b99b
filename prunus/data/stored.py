"""How an image file stores its values, as pillow's header tells it before the file is decoded."""

import struct
import zlib

from PIL import ExifTags, Image

from prunus.errors import DataError

# The exceptions that pillow raises for a truncated file or one that is not an image.
UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    zlib.error,
    KeyError,
    TypeError,
    Image.DecompressionBombError,
)

WHITE = {";16": 65535, ";12": 4095}  # the white level by the end of pillow's name of the stored bits ("I;16B")
MOST_PAGES = 16  # of a TIFF file that are looked at
REDUCED_OR_MASK = 0b101  # of TIFF's NewSubfileType: a smaller version of another page, or its transparency


def _stored(file: Image.Image) -> list[str]:
    """Return pillow's names of the stored bits of an image that is not yet loaded, such as "('I;16B', 0, 1)"."""
    return [str(tile[3]) for tile in getattr(file, "tile", ())]


def white_level(file: Image.Image) -> int | None:
    """Return the white level of unsigned values of more than 8 bits; pillow scales portable pixmaps to 16 bits."""
    if file.format == "PPM" and file.mode == "I":
        return 65535
    named = (white for end, white in WHITE.items() for each in _stored(file) if end in each and f"{end}S" not in each)
    return next(named, None)


def altered(file: Image.Image) -> str:
    """Return why decoding will not give the stored values; "" if it will."""
    if file.format in ("JPEG", "MPO"):
        return "JPEG changes values"
    if any(";2" in each or ";4" in each for each in _stored(file)) and file.mode == "L":
        return "it has fewer than 8 bits per value, so 1 may mean class 1 or a shade"
    if any(";I" in each for each in _stored(file)) and file.mode == "L":
        return "its 0 is white, so that values are inverted"
    if file.format == "PPM" and file.mode == "L" and not all(each in ("L", "('L', 255)") for each in _stored(file)):
        return "its largest value is not 255, so 1 may mean class 1 or a shade"
    return ""


def check_pages(file: Image.Image, name: str) -> None:
    """Refuse a TIFF file of several pages of one size, of which none stands for the others."""
    if file.format != "TIFF":
        return
    size = file.size
    for page in range(1, MOST_PAGES):
        try:
            file.seek(page)
            kind = file.getexif().get(ExifTags.Base.NewSubfileType, 0)
        except UNREADABLE:  # EOFError: there is no such page
            break
        if file.size == size and not (isinstance(kind, int) and kind & REDUCED_OR_MASK):
            raise DataError(
                f"{name} has several pages of {size[0]:,} x {size[1]:,} pixels: save the one that is meant as a file"
            )
    file.seek(0)
