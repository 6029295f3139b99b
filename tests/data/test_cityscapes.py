"""Cityscapes: the layout, the nineteen classes, and errors that name the file."""

import numpy as np
import pytest
import torch
from PIL import Image

from prunus.data import CityscapesData
from prunus.errors import DataError

# cityscapesScripts, helpers/labels.py: the ids of the training classes, by name.
IDS = {
    "road": 7, "sidewalk": 8, "building": 11, "wall": 12, "fence": 13, "pole": 17, "traffic light": 19,
    "traffic sign": 20, "vegetation": 21, "terrain": 22, "sky": 23, "person": 24, "rider": 25, "car": 26,
    "truck": 27, "bus": 28, "train": 31, "motorcycle": 32, "bicycle": 33,
}  # fmt: skip


def cityscapes(root, **fields):
    return CityscapesData(root=root, **{"size": (16, 34), **fields})


def test_label_ids_become_the_nineteen_classes(cityscapes_tree):
    data = cityscapes(cityscapes_tree)
    _, mask = data.validation()[0]
    names = {label_id: name for name, label_id in IDS.items()}
    for label_id in range(34):
        expected = data.class_names.index(names[label_id]) if label_id in names else data.ignore_index
        assert (mask[:, label_id] == expected).all()
    assert len(data.class_names) == len(data.palette) == 19
    assert data.class_frequencies().tolist() == pytest.approx([1 / 19] * 19)


def test_all_cities_of_a_split_are_found_in_order(cityscapes_tree):
    data = cityscapes(cityscapes_tree)
    assert [image.parent.name for image, _ in data.source("train").pairs] == ["aachen", "ulm"]
    assert [len(split) for split in (data.train(), data.validation(), data.test())] == [2, 1, 1]


def test_size_resizes(cityscapes_tree):
    image, mask = cityscapes(cityscapes_tree, size=(32, 68), cache=True).train()[0]
    assert image.shape == (3, 32, 68) and image.dtype == torch.float32 and mask.shape == (32, 68)


def test_missing_parts_say_what_was_expected(cityscapes_tree, tmp_path):
    with pytest.raises(DataError, match=r"(?s)does not exist.*gtFine_labelIds\.png"):
        cityscapes(tmp_path / "nowhere").train()
    (cityscapes_tree / "gtFine").rename(cityscapes_tree / "labels")
    with pytest.raises(DataError, match=r"(?s)gtFine/train does not exist.*unpacked side by side"):
        cityscapes(cityscapes_tree).train()


def test_split_without_images_is_refused(cityscapes_tree):
    for file in (cityscapes_tree / "leftImg8bit/val").glob("*/*"):
        file.unlink()
    with pytest.raises(DataError, match=r"leftImg8bit/val holds no"):
        cityscapes(cityscapes_tree).validation()


def test_image_without_mask_is_named(cityscapes_tree):
    mask = cityscapes_tree / "gtFine/train/ulm/ulm_000000_000007_gtFine_labelIds.png"
    mask.unlink()
    with pytest.raises(DataError, match=rf"ulm_000000_000007_leftImg8bit\.png has no mask: {mask}"):
        cityscapes(cityscapes_tree).train()


def test_id_that_does_not_exist_is_refused(cityscapes_tree):
    mask = cityscapes_tree / "gtFine/val/lindau/lindau_000000_000001_gtFine_labelIds.png"
    Image.fromarray(np.full((16, 34), 34, np.uint8)).save(mask)
    with pytest.raises(DataError, match=r"value 34 at row 0, column 0; Cityscapes' labelIds run from 0 to 33"):
        cityscapes(cityscapes_tree).validation()[0]


def test_what_macos_adds_is_no_image(cityscapes_tree):
    folder = cityscapes_tree / "leftImg8bit" / "train" / "ulm"
    (folder / "._ulm_000000_000007_leftImg8bit.png").write_bytes(b"Mac OS X")
    assert len(cityscapes(cityscapes_tree).train()) == 2
