"""The pixel limit is a recipe's key of each reader of files: a larger image or mask is refused before it is decoded."""

import dataclasses
import inspect
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from box_trees import KITTI_LINES, write_coco, write_kitti, write_voc
from PIL import Image

from prunus import data, recipe
from prunus.data.decode import MAX_PIXELS
from prunus.errors import DataError

COCO = [{"image_id": 10 + number, "category_id": 7, "bbox": [1, 2, 10, 5]} for number in (0, 1)]
WIDE = np.zeros((10, 30, 3), np.uint8)
READERS = [
    kind for name, kind in vars(data).items() if inspect.isclass(kind) and issubclass(kind, data.Data)
    if dataclasses.is_dataclass(kind) and "on_error" in {field.name for field in dataclasses.fields(kind)}
]  # fmt: skip


@pytest.fixture
def trees(tmp_path, camvid_tree, cityscapes_tree):
    """Return the settings of each reader, and the most pixels of any image."""
    folder, chars, shards = tmp_path / "folder", tmp_path / "chars", tmp_path / "shards"
    for path in (folder / "train" / "a" / "0.png", folder / "val" / "a" / "0.png", chars / "0.png"):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(WIDE).save(path)
    shards.mkdir()
    for root in (chars, shards):
        (root / "classes.json").write_text('["a"]')
        (root / "train.txt").write_text("0.png 0\n0.png 0\n")
    picture = io.BytesIO()
    Image.fromarray(WIDE).save(picture, "PNG")
    with tarfile.open(shards / "train-000000.tar", "w") as archive:
        for name, content in (("0.png", picture.getvalue()), ("0.cls", b"0")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return {
        "CamVidData": (camvid_tree, 24 * 32),
        "CityscapesData": (cityscapes_tree, 16 * 34),
        "ImageFolderData": (folder, WIDE[..., 0].size),
        "Chars74KData": (chars, WIDE[..., 0].size),
        "ShardsData": (shards, WIDE[..., 0].size),
        "VOCData": (write_voc(tmp_path / "voc", [("stop", 1, 1, 9, 9)]), 800),
        "KITTIData": (write_kitti(tmp_path / "kitti", KITTI_LINES[:1]), 800),
        "COCOData": (Path(write_coco(tmp_path / "coco", COCO).root), 800),
    }


@pytest.mark.parametrize("kind", READERS)
def test_the_limit_of_a_reader_is_the_recipes(kind, trees):
    root, pixels = trees[kind.__name__]

    def split(limit):
        built = recipe.build(kind, {"root": str(root), "size": [8, 8], "max_pixels": limit})
        return built.train().source

    assert {field.name: field.default for field in dataclasses.fields(kind)}["max_pixels"] == MAX_PIXELS
    read = (lambda source: source.image(0)) if kind.targets == "boxes" else (lambda source: source[0])
    assert read(split(pixels)) is not None
    with pytest.raises(DataError, match=f"at most {pixels - 1} are read: .* data.max_pixels"):
        read(split(pixels - 1))
    if kind.targets == "masks":
        with pytest.raises(DataError, match=r"data\.max_pixels"):
            split(pixels - 1).mask(0)
