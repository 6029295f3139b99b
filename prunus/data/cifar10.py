"""CIFAR-10 as JPEG files in one archive, read without unpacking it."""

import dataclasses
import functools
import io
import lzma
import tarfile
from pathlib import Path, PurePosixPath
from typing import ClassVar, final

import numpy as np
import torch

from prunus.data.classification import CROP_AND_FLIP, ClassificationData, CropAndFlip
from prunus.data.files import check_layout, read_image
from prunus.data.interface import SplitName
from prunus.data.labelled import LabelledArray, held_out
from prunus.data.listing import is_hidden
from prunus.data.segmentation import check_size
from prunus.errors import DataError
from prunus.interrupt import check

ARCHIVE = "cifar10_images.tar.xz"
LAYOUT = f"""\
  {ARCHIVE}         of train/<class>/NNNN.jpg and test/<class>/NNNN.jpg, 32 x 32"""
SIZE = (32, 32)
VALIDATION_SHARE = 0.1
Images = dict[str, tuple[torch.Tensor, tuple[int, ...]]]


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class CIFAR10Data(ClassificationData):
    """CIFAR-10 (Krizhevsky 2009), 50,000 training and 10,000 test images of 32 x 32.

    The JPEG files are lossy, so results are not comparable with published ones. The first use decodes the whole archive
    (about 15 s) and keeps it in memory, 180 MB per process. The last tenth of each class's training images is held out
    for validation.

    Raises:
        RecipeError: an invalid size (see `check_size`).
        DataError: at first use, a missing or malformed archive.
    """

    root: Path
    size: tuple[int, int] = SIZE  # (height, width); images are resized to it
    augmentation: CropAndFlip = CROP_AND_FLIP
    grey: bool = False
    seed: int = 0  # of the augmentation
    cache: bool = False  # the images are in memory anyway

    class_names: ClassVar[tuple[str, ...]] = (
        "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
    )  # fmt: skip

    def __post_init__(self) -> None:
        check_size(self.size)

    def source(self, split: SplitName) -> LabelledArray:
        """Return the images of the split."""
        check_layout(Path(self.root), LAYOUT, ARCHIVE)
        images, labels = read_archive(Path(self.root) / ARCHIVE)["test" if split == "test" else "train"]
        if split != "test":
            chosen = held_out(labels, VALIDATION_SHARE)[split == "validation"]
            images, labels = images[torch.tensor(chosen)], tuple(labels[index] for index in chosen)
        return LabelledArray(images, labels, size=None if self.cropped else self.size)


@functools.lru_cache(maxsize=1)
def read_archive(path: Path) -> Images:
    """Return the images, uint8 [N, 3, 32, 32], and labels of "train" and "test", sorted by class and file number.

    Raises:
        DataError: a damaged archive, or one with an unexpected member, which the message names.
    """
    found: dict[str, dict[str, np.ndarray]] = {"train": {}, "test": {}}
    try:
        with tarfile.open(path, "r|*") as archive:
            for member in archive:
                check()
                file = (
                    archive.extractfile(member)
                    if member.isfile() and not is_hidden(PurePosixPath(member.name))
                    else None
                )
                if file is not None:
                    parts = member.name.removeprefix("./").split("/")
                    if len(parts) != 3 or parts[0] not in found or parts[1] not in CIFAR10Data.class_names:
                        raise DataError(f"{path} holds {member.name}, which is not expected there:\n{LAYOUT}")
                    found[parts[0]]["/".join(parts[1:])] = _decoded(file.read(), f"{path}, {member.name}")
    except (tarfile.TarError, lzma.LZMAError, EOFError, OSError) as error:
        raise DataError(f"{path} cannot be read ({error}): it is damaged or cut short; fetch it again") from error
    for split, images in found.items():
        if not images:
            raise DataError(f"{path} holds no image in {split}/. Expected:\n{LAYOUT}")
    return {split: _sorted(images) for split, images in found.items()}


def _decoded(content: bytes, name: str) -> np.ndarray:
    pixels = read_image(io.BytesIO(content), name)
    if pixels.shape != (*SIZE, 3):
        raise DataError(f"{name} is {pixels.shape[1]} x {pixels.shape[0]} pixels, not 32 x 32")
    return pixels


def _sorted(images: dict[str, np.ndarray]) -> tuple[torch.Tensor, tuple[int, ...]]:
    names = sorted(images)
    pixels = torch.from_numpy(np.stack([images[name] for name in names])).movedim(-1, 1).contiguous()
    return pixels, tuple(CIFAR10Data.class_names.index(name.partition("/")[0]) for name in names)
