"""Data sets of the same images side by side: the same augmentation, a target for each, and what is refused."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from prunus.data import (
    Augmentation,
    CamVidData,
    CombinedData,
    ImageFolderData,
    StreetBoxesData,
    StreetData,
    StreetMultiTaskData,
)
from prunus.data.inventory import inventory
from prunus.errors import DataError, RecipeError

SMALL = {"size": (32, 64), "num_train": 6, "num_validation": 2, "num_test": 4}
STRONG = Augmentation(flip=0.5, shift=4, scale=(0.7, 1.3), brightness=0.3, contrast=0.3, saturation=0.3)


def test_each_image_has_the_target_of_each_data_set():
    data = StreetMultiTaskData(**SMALL)
    masks, boxes = StreetData(**SMALL), StreetBoxesData(**SMALL)
    for name in ("validation", "test"):
        for (image, target), (own, mask), (_, rows) in zip(
            data.split(name), masks.split(name), boxes.split(name), strict=False
        ):
            assert torch.equal(image, own) and torch.equal(target["segmentation"], mask)
            torch.testing.assert_close(target["detection"], rows, equal_nan=True)
    assert data.class_names[:1] == ("segmentation: road",) and data.class_names[-1] == "detection: sign"
    assert data.num_classes == {"segmentation": 11, "detection": 3} and masks.num_classes == 11
    assert len(data.palette) == 14 and data.palette[:11] == masks.palette
    assert data.test().conditions(2) == masks.test().conditions(2)
    assert torch.equal(data.test().picture(1), masks.test().picture(1))


def test_augmentation_moves_masks_and_boxes_alike():
    data = StreetMultiTaskData(**{**SMALL, "size": (64, 128)}, augmentation=STRONG)
    split, car, inside, number = data.train(), data.class_names.index("segmentation: car"), 0, 0
    for epoch in range(4):
        split.set_epoch(epoch)
        for _, target in (split[index] for index in range(len(split))):
            for label, x1, y1, x2, y2, ignored in target["detection"][:, :6].tolist():
                if label == 0 and not ignored and x2 - x1 > 6 and y2 - y1 > 6:
                    middle = target["segmentation"][int(y1 + y2) // 2, int(x1 + x2) // 2]
                    inside, number = inside + int(middle == car), number + 1
    assert number > 20 and inside > 0.85 * number  # another thing may stand before a car
    split.set_epoch(0)
    first, again = split[0], split[0]
    split.set_epoch(1)
    assert torch.equal(first[0], again[0]) and not torch.equal(first[0], split[0][0])


def test_batches_are_dictionaries_in_workers_too():
    data = StreetMultiTaskData(**SMALL)
    for workers in (0, 1):
        images, targets = next(iter(DataLoader(data.train(), batch_size=3, num_workers=workers)))
        assert images.shape == (3, 3, 32, 64) and targets["segmentation"].shape == (3, 32, 64)
        assert targets["detection"].shape[0] == 3 and targets["detection"].shape[2] == 10


def test_data_sets_of_ones_own_are_combined(tmp_path):
    camvid = written(tmp_path)
    size = {"size": (16, 32), "augmentation": Augmentation(flip=0.5, shift=2)}
    parts = {"road": CamVidData(root=camvid, **size), "same": CamVidData(root=camvid, **size, seed=3)}
    data = CombinedData(parts=parts)
    _, target = data.train()[0]  # the seed of the augmentation is the first one's
    assert set(target) == {"road", "same"} and torch.equal(target["road"], target["same"])
    found = inventory(data)
    assert found["train"]["samples"] == 2 and found["class_names"] == list(data.class_names)
    lines = list(data.train().source.listing())
    assert len(lines) == 2 and lines[0].count("0.png") == 4  # an image and a mask each
    other = CombinedData(parts={**parts, "same": dataclasses.replace(parts["same"], size=(32, 64))})
    with pytest.raises(DataError, match=r"sample 0 is not the same image for the sub-tasks road \[3, 16, 32\] and"):
        other.test()[0]


def written(root: Path) -> Path:
    """Write CamVid's layout with two images a split; no two are alike."""
    random = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        names = [(f"{split}/{i}.png", f"{split}annot/{i}.png") for i in range(2)]
        for image, mask in names:
            for path, shape, top in ((root / image, (32, 64, 3), 256), (root / mask, (32, 64), 12)):
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(random.integers(0, top, shape, np.uint8)).save(path)
        (root / f"{split}.txt").write_text("".join(f"{image} {mask}\n" for image, mask in names))
    return root


def test_what_does_not_belong_together_is_refused(tmp_path):
    masks, boxes = StreetData(**SMALL), StreetBoxesData(**SMALL)
    with pytest.raises(RecipeError, match=r"data\.parts names the data set of each sub-task, and none are given"):
        CombinedData(parts={})
    with pytest.raises(RecipeError, match=r"two has several targets itself"):
        CombinedData(parts={"one": masks, "two": StreetMultiTaskData(**SMALL)})
    more = CombinedData(parts={"masks": masks, "boxes": dataclasses.replace(boxes, num_test=5)})
    with pytest.raises(DataError, match=r"the test splits .* masks has 4, boxes has 5"):
        more.test()
    other = CombinedData(parts={"masks": masks, "boxes": dataclasses.replace(boxes, seed=1)})
    with pytest.raises(DataError, match=r"sample 3 is not the same image for the sub-tasks masks .* and boxes"):
        other.test()[3]
    with pytest.raises(RecipeError, match=r"data\.num_test"):
        StreetMultiTaskData(**{**SMALL, "num_test": 0})


def test_unreadable_images_are_skipped_where_all_allow_it(tmp_path):
    for split in ("train", "val", "test"):
        for index in range(4):
            path = tmp_path / split / f"{index % 2}" / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.random.default_rng(index).integers(0, 256, (32, 32, 3), np.uint8)).save(path)
    (tmp_path / "train" / "0" / "0.png").write_bytes(b"no image")
    skip = ImageFolderData(root=tmp_path, size=(16, 16), on_error="skip", max_skipped=0.5)
    strict = dataclasses.replace(skip, on_error="raise")
    data = CombinedData(parts={"one": skip, "two": skip})
    split = data.train()
    assert {"one", "two"} == set(split[0][1]) and len(split.unreadable()) == 1
    with pytest.raises(DataError):
        CombinedData(parts={"one": skip, "two": strict}).train()[0]
