"""Masks whose files do not hold class numbers one to one are refused, and a palette is read in one way."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from prunus.data.masks import read_mask, value_table
from prunus.errors import DataError

TABLE = value_table({number: number for number in range(256)}, (), 255)  # takes any value
COLOURS = {(0, 0, 0): 255, (128, 0, 0): 1, (128, 128, 0): 5, (0, 0, 192): 4}
NUMBERS = np.array([[0, 1], [3, 1]], np.uint8)


def read(path, colours=None):
    return read_mask(path, TABLE, "any number is a class", colours)


def grey_png(bits):
    """Return a grey PNG of 8 x 1 pixels with `bits` per value, 0 and 1 in turn, which pillow does not write."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    row = np.packbits(np.tile([0] * bits + [0] * (bits - 1) + [1], 4)).tobytes()
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 1, bits, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" + row)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("bits", [2, 4])
def test_values_of_few_bits_are_refused_since_they_are_scaled(tmp_path, bits):
    path = tmp_path / "mask.png"
    path.write_bytes(grey_png(bits))
    with pytest.raises(DataError, match=r"mask\.png: it has fewer than 8 bits.*save it as PNG with 8 bits"):
        read(path)
    path.write_bytes(grey_png(8))
    assert read(path).tolist() == [[0, 1] * 4]


@pytest.mark.parametrize("form", [b"P5 2 2 15\n\0\1\3\1", b"P2 2 2 15\n0 1 3 1\n"])
def test_a_portable_map_of_another_white_is_refused(tmp_path, form):
    path = tmp_path / "mask.pgm"
    path.write_bytes(form)
    with pytest.raises(DataError, match=r"mask\.pgm: its largest value is not 255.*save it as PNG with 8 bits"):
        read(path)
    path.write_bytes(form.replace(b" 15", b" 255"))
    assert np.array_equal(read(path), NUMBERS)


def test_jpeg_is_refused_since_it_changes_numbers(tmp_path):
    path = tmp_path / "mask.jpg"
    Image.fromarray(NUMBERS).save(path, quality=100)
    with pytest.raises(DataError, match=r"mask\.jpg: JPEG changes values.*save it as PNG with 8 bits"):
        read(path)


def test_white_as_zero_is_refused(tmp_path):
    path = tmp_path / "mask.tif"
    Image.fromarray(NUMBERS).save(path, tiffinfo={262: 0})
    with pytest.raises(DataError, match=r"mask\.tif: its 0 is white"):
        read(path)


def with_palette(path, palette):
    picture = Image.fromarray(NUMBERS)
    picture.putpalette([side for colour in palette for side in colour])
    picture.save(path)
    assert picture.mode == "P"


def test_the_palette_of_pascal_voc_shows_numbers(tmp_path):
    path = tmp_path / "mask.png"
    with_palette(path, [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128)])
    assert np.array_equal(read(path, COLOURS), NUMBERS)  # though (128, 128, 0) is class 5


def test_a_palette_of_known_and_other_colours_is_refused(tmp_path):
    path = tmp_path / "mask.png"
    with_palette(path, [(128, 0, 0), (0, 0, 192), (9, 9, 9), (1, 2, 3)])
    with pytest.raises(
        DataError, match=r"mask\.png: its palette has the colours \(0, 0, 192\) of a class and \(1, 2, 3\)"
    ):
        read(path, COLOURS)
    with_palette(path, [(128, 0, 0), (0, 0, 192), (9, 9, 9), (0, 0, 0)])
    assert read(path, COLOURS).tolist() == [[1, 4], [255, 4]]
    with_palette(path, [(0, 0, 0), (7, 7, 3), (9, 9, 9), (1, 2, 3)])
    assert np.array_equal(read(path, COLOURS), NUMBERS)
