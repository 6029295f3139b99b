"""Images of every mode come out as what they show, in 8 bits, or are refused by name."""

import numpy as np
import pytest
from PIL import Image

from prunus.data.files import read_image
from prunus.errors import DataError

GREY = np.arange(256, dtype=np.uint8).reshape(16, 16)
COLOURS = np.stack([GREY, GREY[::-1], GREY.T], -1)


def picture(mode):
    return Image.fromarray(COLOURS).convert(mode)


@pytest.mark.parametrize("ending", ["png", "tif"])
@pytest.mark.parametrize("low", [-128, 0, 128], ids=str)
def test_sixteen_bits_become_the_nearest_of_eight(tmp_path, ending, low):
    path = tmp_path / f"image.{ending}"
    wide = (GREY.astype(np.int64) * 257 + low).clip(0, 65535).astype(np.uint16)
    Image.fromarray(wide).save(path)
    assert np.array_equal(read_image(path), np.stack([GREY] * 3, -1))


def test_sixteen_bits_of_the_other_byte_order(tmp_path):
    path = tmp_path / "image.tif"
    Image.frombytes("I;16B", (16, 16), (GREY.astype(">u2") * 257).tobytes()).save(path)
    assert np.array_equal(read_image(path)[..., 1], GREY)


@pytest.mark.parametrize("numbers", [np.int32, np.float32])
def test_values_of_unknown_range_are_refused(tmp_path, numbers):
    path = tmp_path / "image.tif"
    Image.fromarray(GREY.astype(numbers)).save(path)
    with pytest.raises(DataError, match=r"image\.tif: its values .* nobody knows which of them is white: save it"):
        read_image(path)


@pytest.mark.parametrize(
    ("mode", "ending"), [("RGB", "png"), ("RGBA", "png"), ("CMYK", "tif"), ("L", "png"), ("LA", "png")]
)
def test_other_modes_keep_what_they_show(tmp_path, mode, ending):
    path = tmp_path / f"image.{ending}"
    picture(mode).save(path)
    expected = COLOURS if mode[0] != "L" else np.stack([np.array(picture("L"))] * 3, -1)
    assert np.array_equal(read_image(path), expected)


def test_two_colours_are_black_and_white(tmp_path):
    path = tmp_path / "image.png"
    Image.fromarray(GREY > 99).save(path)
    assert np.array_equal(read_image(path)[..., 0], np.where(GREY > 99, 255, 0))


@pytest.mark.parametrize("transparency", [None, 3, bytes(range(16))], ids=["opaque", "one", "all"])
def test_a_palette_keeps_its_colours(tmp_path, transparency):
    path = tmp_path / "image.png"
    palette = Image.fromarray(COLOURS).quantize(16)
    palette.save(path, **({} if transparency is None else {"transparency": transparency}))
    assert np.array_equal(read_image(path), np.array(palette.convert("RGB")))
