"""CamVid: SegNet's layout, and errors that name the file."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from prunus.data import Augmentation, CamVidData
from prunus.data.camvid import ORIGINAL_COLOURS
from prunus.errors import DataError, RecipeError

REAL = Path(__file__).parents[3] / "shared" / "data" / "camvid"


def camvid(root, **fields):
    return CamVidData(root=root, **{"size": (24, 32), **fields})


def test_masks_become_classes_and_void_is_ignored(camvid_tree):
    data = camvid(camvid_tree)
    _, mask = data.test()[0]
    values = np.arange(24 * 32).reshape(24, 32) % 12
    assert torch.equal(mask, torch.from_numpy(np.where(values == 11, 255, values)))
    assert data.class_frequencies().tolist() == pytest.approx([1 / 11] * 11)


def test_size_resizes_image_and_mask(camvid_tree):
    image, mask = camvid(camvid_tree, size=(12, 16)).validation()[0]
    assert image.shape == (3, 12, 16) and mask.shape == (12, 16)
    assert set(mask.unique().tolist()) <= {*range(11), 255}  # nearest: no value in between


@pytest.mark.parametrize("cache", [True, False])
def test_cache_changes_nothing(camvid_tree, cache):
    sample = camvid(camvid_tree, cache=cache).train()[1]
    assert torch.equal(sample[0], camvid(camvid_tree).train()[1][0])


def test_missing_folder_says_what_was_expected_where(tmp_path):
    with pytest.raises(DataError) as error:
        camvid(tmp_path / "nowhere").train()
    message = str(error.value)
    assert str((tmp_path / "nowhere").resolve()) in message
    assert "train.txt" in message and "trainannot/" in message


def test_missing_list_is_named(camvid_tree):
    (camvid_tree / "val.txt").unlink()
    with pytest.raises(DataError, match=r"val\.txt does not exist"):
        camvid(camvid_tree).validation()


@pytest.mark.parametrize(
    ("text", "message"),
    [("train/0.png\n", r'train\.txt, line 1: expected "image mask"'), ("\n", r"train\.txt lists no image")],
)
def test_list_that_is_none_is_refused(camvid_tree, text, message):
    (camvid_tree / "train.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        camvid(camvid_tree).train()


@pytest.mark.parametrize(
    ("path", "message"),
    [("trainannot/1.png", r"1\.png has no mask: .*trainannot/1\.png"), ("train/1.png", r"train/1\.png does not exist")],
)
def test_missing_file_is_named(camvid_tree, path, message):
    (camvid_tree / path).unlink()
    with pytest.raises(DataError, match=message):
        camvid(camvid_tree).train()


@pytest.mark.parametrize("path", ["train/0.png", "trainannot/0.png"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.4, 0.7])
def test_truncated_file_is_named(camvid_tree, path, share):
    file = camvid_tree / path
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DataError, match=rf"{path} cannot be read as an image .* cut short"):
        camvid(camvid_tree).train()[0]


def test_a_file_that_vanishes_later_is_named(camvid_tree):
    split = camvid(camvid_tree).train()
    (camvid_tree / "train/0.png").unlink()
    with pytest.raises(DataError, match=r"train/0\.png does not exist"):
        split[0]


def test_sizes_that_differ_name_both_files(camvid_tree):
    Image.new("L", (30, 24)).save(camvid_tree / "trainannot/0.png")
    with pytest.raises(DataError, match=r"train/0\.png is 32 x 24 .*trainannot/0\.png 30 x 24"):
        camvid(camvid_tree).train()[0]


def test_value_outside_the_classes_is_named_with_its_place(camvid_tree):
    values = np.zeros((24, 32), np.uint8)
    values[5, 9] = 12
    Image.fromarray(values).save(camvid_tree / "trainannot/0.png")
    message = r"trainannot/0\.png: the mask has value 12 at row 5, column 9; CamVid has classes 0 to 10"
    with pytest.raises(DataError, match=message):
        camvid(camvid_tree).train()[0]
    with pytest.raises(DataError, match=message):
        camvid(camvid_tree, cache=False).class_frequencies()


ORIGINAL = {  # name of the original's 32: its colour, and the class of the 11 that it is counted as
    "Sky": ((128, 128, 128), "sky"),
    "Bridge": ((0, 128, 64), "building"),
    "TrafficCone": ((0, 0, 64), "pole"),
    "LaneMkgsDriv": ((128, 0, 192), "road"),
    "Sidewalk": ((0, 0, 192), "pavement"),
    "RoadShoulder": ((128, 128, 192), "pavement"),
    "VegetationMisc": ((192, 192, 0), "tree"),
    "TrafficLight": ((0, 64, 64), "sign"),
    "Fence": ((64, 64, 128), "fence"),
    "SUVPickupTruck": ((64, 128, 192), "car"),
    "Child": ((192, 128, 64), "pedestrian"),
    "MotorcycleScooter": ((192, 0, 192), "bicyclist"),
    "Void": ((0, 0, 0), None),
}


@pytest.mark.parametrize("form", ["colours", "transparency", "palette"])
def test_original_masks_of_colours_become_classes(camvid_tree, form):
    numbers = np.arange(24 * 32).reshape(24, 32) % len(ORIGINAL)
    colours = np.array([colour for colour, _ in ORIGINAL.values()], np.uint8)[numbers]
    picture = Image.fromarray(colours)
    if form == "transparency":
        picture = picture.convert("RGBA")
    elif form == "palette":
        picture = picture.quantize(32)
    picture.save(camvid_tree / "trainannot/0.png")
    names = CamVidData.class_names
    wanted = np.array([255 if name is None else names.index(name) for _, name in ORIGINAL.values()])[numbers]
    data = camvid(camvid_tree, augmentation=Augmentation(flip=0.0, shift=0))
    assert torch.equal(data.train()[0][1], torch.from_numpy(wanted))


def test_every_original_colour_has_one_class():
    listed = [colour for colours in ORIGINAL_COLOURS.values() for colour in colours]
    assert len(set(listed)) == len(listed) == 31  # and Void
    assert set(ORIGINAL_COLOURS) == set(CamVidData.class_names)


def test_a_colour_that_is_no_class_is_named_with_its_place(camvid_tree):
    picture = Image.new("RGB", (32, 24), (128, 64, 128))
    picture.putpixel((9, 5), (128, 64, 127))
    picture.save(camvid_tree / "trainannot/0.png")
    with pytest.raises(DataError, match=r"0\.png: the mask has colour \(128, 64, 127\) at row 5, column 9; CamVid"):
        camvid(camvid_tree).train()[0]


@pytest.mark.parametrize("shown", ["greys", "others", "own"])
def test_a_palette_for_looking_at_numbers_leaves_them_numbers(camvid_tree, shown):
    values = (np.arange(24 * 32).reshape(24, 32) % 11).astype(np.uint8)
    picture = Image.fromarray(values)
    palettes = {
        "greys": [(number, number, number) for number in range(11)],
        "others": [(20 * number, 7, 3) for number in range(11)],
        "own": CamVidData.palette,
    }
    picture.putpalette([side for colour in palettes[shown] for side in colour])
    picture.save(camvid_tree / "trainannot/0.png")
    assert picture.mode == "P"
    data = camvid(camvid_tree, augmentation=Augmentation(flip=0.0, shift=0))
    assert torch.equal(data.train()[0][1], torch.from_numpy(values).long())


def test_mask_of_other_channels_is_refused(camvid_tree):
    Image.new("LA", (32, 24)).save(camvid_tree / "trainannot/0.png")
    with pytest.raises(DataError, match=r"trainannot/0\.png: a mask has one channel .* mode LA"):
        camvid(camvid_tree).train()[0]


def test_size_that_no_image_has_is_refused(camvid_tree):
    with pytest.raises(RecipeError, match=r"data\.size"):
        camvid(camvid_tree, size=(0, 10))


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no CamVid at {REAL}")
def test_real_counts_and_class_shares():
    data = CamVidData(root=REAL, cache=False)
    assert [len(split) for split in (data.train(), data.validation(), data.test())] == [367, 101, 233]
    image, mask = data.test()[0]
    assert image.shape == (3, 360, 480) and mask.shape == (360, 480)
    # The data set's own table gives shares of all pixels, 4.0 % of them void.
    stated = {"road": 31.7, "building": 23.3, "sky": 16.9, "tree": 9.7, "car": 5.9, "pavement": 4.5, "sign": 1.2}
    stated |= {"fence": 1.1, "pole": 1.0, "pedestrian": 0.6, "bicyclist": 0.3}
    shares = dict(zip(data.class_names, (data.class_frequencies() * 96.0).tolist(), strict=True))
    assert shares == pytest.approx(stated, abs=0.11)


def test_a_list_with_a_byte_order_mark(camvid_tree):
    path = camvid_tree / "train.txt"
    path.write_bytes(path.read_text().replace("/SegNet/CamVid/", "").replace("\n", "\r\n").encode("utf-8-sig"))
    assert len(camvid(camvid_tree).train()) == 2
    path.write_bytes(path.read_bytes().decode("utf-8-sig").encode("utf-16"))
    with pytest.raises(DataError, match=r"train\.txt cannot be read as a list"):
        camvid(camvid_tree).train()
