"""Chars74K: characters in natural scenes, read from lists of "path class" lines."""

import dataclasses
import functools
from pathlib import Path
from typing import final

from prunus.data.classification import CROP_ONLY, ClassificationData, CropAndFlip
from prunus.data.decode import MAX_PIXELS
from prunus.data.files import check_layout
from prunus.data.interface import OnError, SplitName
from prunus.data.labelled import LabelledFiles, class_names, held_out
from prunus.data.listing import read_lines
from prunus.data.segmentation import check_size
from prunus.errors import DataError, RecipeError

LAYOUT = """\
  train.txt val.txt             "path class" per line: "English/Img/GoodImg/Bmp/Sample001/img001-00001.jpg 0"
  classes.json                  a list of the classes' names
  English/Img/GoodImg/Bmp/      the images, as Chars74K has them"""


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Chars74KData(ClassificationData):
    """Characters (de Campos et al., VISAPP 2009), by default with one grey channel, as Dec3 expects.

    `val.txt` is the test split; the last images of each class in `train.txt` are held out for validation.

    Raises:
        RecipeError: an invalid size (see `check_size`), or a share outside (0, 1).
        DataError: at first use, a missing or malformed folder or file (named).
    """

    root: Path
    size: tuple[int, int] = (32, 32)  # (height, width)
    augmentation: CropAndFlip = CROP_ONLY
    grey: bool = True
    seed: int = 0  # of the augmentation
    cache: bool = True
    on_error: OnError = "raise"  # at an unreadable training image; "skip" uses the next one
    max_skipped: float = 0.01  # share of the training images that may be skipped
    max_pixels: int = MAX_PIXELS  # a larger image is refused before it is decoded
    validation_share: float = 0.1

    def __post_init__(self) -> None:
        check_size(self.size)
        if not 0 < self.validation_share < 1:
            raise RecipeError(f"data.validation_share lies between 0 and 1, it is not {self.validation_share}")

    @functools.cached_property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes."""
        check_layout(Path(self.root), LAYOUT, "classes.json")
        path = Path(self.root) / "classes.json"
        return class_names(path)

    def source(self, split: SplitName) -> LabelledFiles:
        """Return the images in the split's list."""
        listed = Path(self.root) / ("val.txt" if split == "test" else "train.txt")
        check_layout(Path(self.root), LAYOUT, listed.name)
        paths, labels = self._read(listed)
        if split != "test":
            chosen = held_out(labels, self.validation_share)[split == "validation"]
            paths, labels = [paths[index] for index in chosen], [labels[index] for index in chosen]
        size = None if self.cropped else self.size
        return LabelledFiles(paths, labels, size=size, origin=str(listed), max_pixels=self.max_pixels)

    def _read(self, listed: Path) -> tuple[list[Path], list[int]]:
        paths, labels = list[Path](), list[int]()
        for number, line in read_lines(listed):
            name, _, label = line.rstrip().rpartition(" ")
            if not name or not label.isdecimal() or int(label) >= len(self.class_names):
                raise DataError(
                    f'{listed}, line {number}: expected "path class", the class from 0 to '
                    f"{len(self.class_names) - 1}, got {line!r}"
                )
            paths.append(Path(self.root) / name)
            labels.append(int(label))
        return paths, labels
