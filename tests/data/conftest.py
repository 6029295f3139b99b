"""Tiny trees of files in the layouts that the readers expect."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def write_pair(image: Path, mask: Path, values: np.ndarray) -> None:
    """Write a mask of `values` and an image of noise of its size."""
    image.parent.mkdir(parents=True, exist_ok=True)
    mask.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (*values.shape, 3), np.uint8)
    Image.fromarray(pixels).save(image)
    Image.fromarray(values.astype(np.uint8)).save(mask)


@pytest.fixture
def camvid_tree(tmp_path):
    """Two images a split of 24 x 32, in SegNet's layout; every class and void occur in each mask."""
    values = np.arange(24 * 32).reshape(24, 32) % 12
    for split in ("train", "val", "test"):
        names = [(f"{split}/{i}.png", f"{split}annot/{i}.png") for i in range(2)]
        for image, mask in names:
            write_pair(tmp_path / image, tmp_path / mask, values)
        (tmp_path / f"{split}.txt").write_text("".join(f"/SegNet/CamVid/{a} /SegNet/CamVid/{b}\n" for a, b in names))
    return tmp_path


@pytest.fixture
def cityscapes_tree(tmp_path):
    """Two training cities and one of validation, 16 x 34; each column holds one of the 34 label ids."""
    values = np.tile(np.arange(34), (16, 1))
    for split, city, frame in (("train", "aachen", 3), ("train", "ulm", 7), ("val", "lindau", 1)):
        stem = f"{city}_000000_{frame:06d}"
        image = tmp_path / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png"
        write_pair(image, tmp_path / "gtFine" / split / city / f"{stem}_gtFine_labelIds.png", values)
    return tmp_path
