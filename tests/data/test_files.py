"""Images of every mode come out as what they show, in 8 bits, or are refused by name."""

import errno
import struct
import zlib

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from prunus.data.decode import ENDINGS, FORMATS, dimensions
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
    with pytest.raises(DataError, match=r"image\.tif: its values .* white level is unknown: save it"):
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


def test_every_ending_of_a_format_that_is_read_is_known():
    known = {ending for ending, kind in Image.registered_extensions().items() if kind in FORMATS}
    assert set(ENDINGS) == known


@pytest.mark.parametrize("ending", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_rotation_in_the_tags_is_followed(tmp_path, ending, orientation):
    path, exif = tmp_path / f"image.{ending}", Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    blocks = Image.fromarray(np.kron([[0, 80], [160, 240], [30, 110]], np.ones((16, 16))).astype(np.uint8)).convert(
        "RGB"
    )
    blocks.save(path, exif=exif)
    with Image.open(path) as file:
        expected = np.array(ImageOps.exif_transpose(file))
    found = read_image(path)
    assert found.shape == ((48, 32, 3) if orientation < 5 else (32, 48, 3))
    assert np.array_equal(found, expected)


def test_tags_that_cannot_be_read_leave_the_image_as_stored(tmp_path):
    path = tmp_path / "image.png"
    Image.fromarray(COLOURS).save(path, exif=b"Exif\0\0no tags at all")
    assert np.array_equal(read_image(path), COLOURS)


@pytest.mark.parametrize("ending", ["png", "tif", "pgm"])
@pytest.mark.parametrize("most", [1, 255, 1023, 4095])
def test_sixteen_bits_that_hold_few_values_are_refused(tmp_path, ending, most):
    path = tmp_path / f"image.{ending}"
    Image.fromarray((GREY.astype(np.uint32) * most // 255).astype(np.uint16)).save(path)
    with pytest.raises(
        DataError, match=rf"image\.{ending}: its 16-bit values are all below 4,096.*save it with 8 bits"
    ):
        read_image(path)


def test_sixteen_bits_of_black_are_black(tmp_path):
    path = tmp_path / "image.png"
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(path)
    assert not read_image(path).any()


@pytest.mark.parametrize("most", [1023, 4095, 65535])
def test_a_portable_map_says_which_value_is_white(tmp_path, most):
    path = tmp_path / "image.pgm"
    values = np.round(GREY / 255 * most).astype(">u2")
    path.write_bytes(b"P5 16 16 %d\n" % most + values.tobytes())
    assert np.abs(read_image(path)[..., 0].astype(int) - GREY).max() <= 1


def png_of_sixteen_bits(values):
    """Return a PNG of colours in 16 bits, which pillow does not write."""

    def chunk(kind, content):
        checked = kind + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_colours_in_sixteen_bits(tmp_path):
    path = tmp_path / "image.png"
    path.write_bytes(png_of_sixteen_bits(COLOURS.astype(np.int64) * 257))
    assert np.array_equal(read_image(path), COLOURS)
    path.write_bytes(png_of_sixteen_bits(COLOURS.astype(np.int64) * 16))
    with pytest.raises(DataError, match=r"image\.png: its 16-bit values are all below 4,096"):
        read_image(path)


def test_a_file_beyond_the_limit_is_not_called_damaged(tmp_path, monkeypatch):
    path = tmp_path / "image.png"
    Image.fromarray(COLOURS).save(path)
    monkeypatch.setattr("prunus.data.decode.MAX_BYTES", 10)
    with pytest.raises(DataError, match=r"image\.png is not read: it has \d+ bytes, and at most 10 ") as error:
        read_image(path)
    assert "damaged" not in str(error.value)


def test_what_the_file_system_refuses_is_not_called_damaged(tmp_path, monkeypatch):
    def refused(path, most):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("prunus.data.decode.read_bytes", refused)
    with pytest.raises(DataError, match=r"image\.png cannot be read \(Permission denied\)") as error:
        read_image(tmp_path / "image.png")
    assert "damaged" not in str(error.value)


def test_what_others_put_in_the_place_of_pillows_open_is_not_called(tmp_path, monkeypatch):
    def other(*args, **settings):
        raise AssertionError("another package's Image.open was called")

    Image.fromarray(GREY).save(tmp_path / "image.png")
    (tmp_path / "none.png").write_bytes(b"no image at all")
    monkeypatch.setattr(Image, "open", other)
    assert np.array_equal(read_image(tmp_path / "image.png")[..., 0], GREY)
    with pytest.raises(DataError, match=r"none\.png cannot be read as an image"):
        read_image(tmp_path / "none.png")


def twelve_bits(values):
    """Return a TIFF of [16, 16] values in 12 bits, which pillow does not write."""
    flat = values.ravel().astype(int)
    packed = b"".join(
        bytes([one >> 4, (one & 15) << 4 | two >> 8, two & 255]) for one, two in zip(flat[::2], flat[1::2], strict=True)
    )
    tags = {256: 16, 257: 16, 258: 12, 259: 1, 262: 1, 273: 8 + 2 + 9 * 12 + 4, 277: 1, 278: 16, 279: len(packed)}
    table = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + table + bytes(4) + packed


def test_twelve_bits_are_scaled_by_their_own_white(tmp_path):
    path = tmp_path / "image.tif"
    path.write_bytes(twelve_bits(np.round(GREY / 255 * 4095)))
    assert np.array_equal(read_image(path)[..., 0], GREY)
    path.write_bytes(twelve_bits(GREY))
    with pytest.raises(DataError, match=r"image\.tif: its 12-bit values are all below 256 of 4,095"):
        read_image(path)


@pytest.mark.parametrize(("kind", "refused"), [({}, True), ({254: 1}, False), ({254: 4}, False)])
def test_several_pages_of_one_size_are_refused(tmp_path, kind, refused):
    path = tmp_path / "image.tif"
    second = Image.fromarray(255 - GREY)
    second.encoderinfo = {"tiffinfo": kind}
    Image.fromarray(GREY).save(path, save_all=True, append_images=[second])
    if refused:
        with pytest.raises(DataError, match=r"image\.tif has several pages of 16 x 16 pixels: save the one"):
            read_image(path)
    else:
        assert np.array_equal(read_image(path)[..., 0], GREY)


def test_a_smaller_second_page_is_a_preview(tmp_path):
    path = tmp_path / "image.tif"
    Image.fromarray(GREY).save(path, save_all=True, append_images=[Image.fromarray(GREY[:8, :8].copy())])
    assert np.array_equal(read_image(path)[..., 0], GREY)


@pytest.mark.parametrize("ending", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("tags", [*range(1, 9), b"Exif\0\0no tags at all"], ids=str)
def test_the_size_in_the_header_is_that_of_the_image_read(tmp_path, ending, tags):
    if ending == "tif" and isinstance(tags, bytes):
        pytest.skip("the tags of a TIFF are its header")
    path, exif = tmp_path / f"image.{ending}", Image.Exif()
    exif[ExifTags.Base.Orientation] = tags if isinstance(tags, int) else 1
    Image.fromarray(np.zeros((20, 40, 3), np.uint8)).save(path, exif=tags if isinstance(tags, bytes) else exif)
    height, width = read_image(path).shape[:2]
    assert dimensions(path) == (width, height)
