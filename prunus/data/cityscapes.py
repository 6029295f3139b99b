"""Cityscapes: 19 classes, 2,975 training and 500 validation images with fine masks, 2048 x 1024."""

import dataclasses
from pathlib import Path
from typing import ClassVar, final

from prunus.data.augmentation import DEFAULT_AUGMENTATION, Augmentation
from prunus.data.decode import MAX_PIXELS
from prunus.data.files import FileSource, check_layout
from prunus.data.interface import OnError, SplitName
from prunus.data.listing import is_hidden
from prunus.data.masks import value_table
from prunus.data.segmentation import SegmentationData, check_size
from prunus.errors import DataError

LAYOUT = """\
  leftImg8bit/{train,val,test}/<city>/<city>_<sequence>_<frame>_leftImg8bit.png
  gtFine/{train,val,test}/<city>/<city>_<sequence>_<frame>_gtFine_labelIds.png
(leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip of cityscapes-dataset.com, unpacked side by side)"""
# The masks of the test split are not public; as is customary, results are reported on the validation split.
FOLDERS: dict[SplitName, str] = {"train": "train", "validation": "val", "test": "val"}
IMAGE, MASK = "_leftImg8bit.png", "_gtFine_labelIds.png"
# labelIds (0 to 33) of the training classes, in the order of their training ids (cityscapesScripts,
# helpers/labels.py); the other ids are void.
LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
NUM_LABEL_IDS = 34


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class CityscapesData(SegmentationData):
    """Cityscapes (Cordts et al., CVPR 2016), the 19 classes of its benchmark.

    `test()` is the validation split: the masks of the test split are not public.

    Raises:
        RecipeError: an invalid size (see `check_size`).
        DataError: at first use, a missing or malformed folder or file (named).
    """

    root: Path
    size: tuple[int, int] = (512, 1024)  # (height, width); images are resized to it
    augmentation: Augmentation = DEFAULT_AUGMENTATION
    seed: int = 0  # of the augmentation
    cache: bool = False  # keep decoded images in memory: 6.2 GB for the training split at 1024 x 512
    on_error: OnError = "raise"  # at an unreadable training image; "skip" uses the next one
    max_skipped: float = 0.01  # share of the training images that may be skipped
    max_pixels: int = MAX_PIXELS  # a larger image is refused before it is decoded

    class_names: ClassVar[tuple[str, ...]] = (
        "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign",
        "vegetation", "terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle",
        "bicycle",
    )  # fmt: skip
    palette: ClassVar[tuple[tuple[int, int, int], ...]] = (
        (128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153), (153, 153, 153),
        (250, 170, 30), (220, 220, 0), (107, 142, 35), (152, 251, 152), (70, 130, 180), (220, 20, 60),
        (255, 0, 0), (0, 0, 142), (0, 0, 70), (0, 60, 100), (0, 80, 100), (0, 0, 230), (119, 11, 32),
    )  # fmt: skip

    def __post_init__(self) -> None:
        check_size(self.size)

    def source(self, split: SplitName) -> FileSource:
        """Return every image of the split's cities with its fine mask."""
        root, folder = Path(self.root), FOLDERS[split]
        check_layout(root, LAYOUT, f"leftImg8bit/{folder}", f"gtFine/{folder}")
        inside = root / "leftImg8bit" / folder
        images = sorted(path for path in inside.glob(f"*/*{IMAGE}") if not is_hidden(path.relative_to(inside)))
        if not images:
            raise DataError(f"{inside} holds no */*{IMAGE}. Expected in {root}:\n{LAYOUT}")
        classes = {label_id: label for label, label_id in enumerate(LABEL_IDS)}
        return FileSource(
            [(image, _mask_of(image, root / "gtFine" / folder)) for image in images],
            size=self.size,
            max_pixels=self.max_pixels,
            table=value_table(classes, range(NUM_LABEL_IDS), self.ignore_index),
            meaning="Cityscapes' labelIds run from 0 to 33",
        )


def _mask_of(image: Path, folder: Path) -> Path:
    """leftImg8bit/val/ulm/ulm_0_1_leftImg8bit.png -> <folder>/ulm/ulm_0_1_gtFine_labelIds.png."""
    return folder / image.parent.name / (image.name.removesuffix(IMAGE) + MASK)
