"""KITTI's object detection set: training/image_2, training/label_2, lists in ImageSets."""

import dataclasses
import math
from pathlib import Path
from typing import ClassVar, final

from prunus.data.annotations import AnnotatedFiles, Annotation, Checker, OnBadBox
from prunus.data.augmentation import DEFAULT_AUGMENTATION, Augmentation
from prunus.data.decode import MAX_PIXELS
from prunus.data.detection import DetectionData
from prunus.data.files import check_layout
from prunus.data.interface import OnError, SplitName
from prunus.data.listing import read_lines
from prunus.data.segmentation import check_size
from prunus.errors import DataError

LAYOUT = """\
  training/image_2/NNNNNN.png   the images
  training/label_2/NNNNNN.txt   15 columns per line: type, truncated, occluded, alpha, box, dimensions, location, ...
  ImageSets/train.txt val.txt   a number per line"""
TYPES = ("Car", "Van", "Truck", "Pedestrian", "Person_sitting", "Cyclist", "Tram", "Misc", "DontCare")
NEIGHBOURS = {"Van": "Car", "Person_sitting": "Pedestrian"}  # similar types: ignored objects of the class
COLUMNS = 15


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class KITTIData(DetectionData):
    """KITTI's 2-D boxes (Geiger, Lenz & Urtasun, CVPR 2012) of cars, pedestrians and cyclists.

    As in KITTI's evaluation, a van is an ignored car, a sitting person is an ignored pedestrian, and detections inside
    a DontCare region are not counted as false; objects of the other types are background. KITTI's test labels are not
    public, so `test_list` is by default the commonly used validation list.

    Raises:
        RecipeError: an invalid size (see `check_size`).
        DataError: at first use, a missing or malformed file, or a bad box (named).
    """

    root: Path
    size: tuple[int, int] = (192, 640)  # (height, width); images keep their aspect ratio
    train_list: str = "ImageSets/train.txt"
    validation_list: str = "ImageSets/val.txt"
    test_list: str = "ImageSets/val.txt"
    augmentation: Augmentation = DEFAULT_AUGMENTATION
    seed: int = 0  # of the augmentation
    cache: bool = False  # keep scaled images in memory: 1.4 GB for the training split at 640 x 192
    on_bad_box: OnBadBox = "clip"  # cropped frames have boxes that reach beyond the border
    on_error: OnError = "raise"  # at an unreadable training image; "skip" uses the next one
    max_skipped: float = 0.01
    max_pixels: int = MAX_PIXELS  # a larger image is refused before it is decoded

    class_names: ClassVar[tuple[str, ...]] = ("Car", "Pedestrian", "Cyclist")

    def __post_init__(self) -> None:
        check_size(self.size)

    def source(self, split: SplitName, checker: Checker) -> AnnotatedFiles:
        """Return the frames in the split's list."""
        root = Path(self.root)
        listed = {"train": self.train_list, "validation": self.validation_list, "test": self.test_list}[split]
        check_layout(root, LAYOUT, listed, "training/image_2", "training/label_2")
        folder = root / "training"
        names = [line.strip() for _, line in read_lines(root / listed)]
        samples = [(folder / "image_2" / f"{name}.png", _labels(folder / "label_2" / f"{name}.txt")) for name in names]
        return AnnotatedFiles(samples, checker, str(root / listed))


def _labels(path: Path) -> list[Annotation]:
    """Return a frame's objects of the classes and of their `NEIGHBOURS`, and its DontCare regions."""
    if not path.is_file():
        raise DataError(f"{path} does not exist, though its frame is listed: add it, or remove the frame from the list")
    found = []
    for number, line in read_lines(path):
        annotation = _annotation(line.split(), f"{path}, line {number}")
        if annotation is not None:
            found.append(annotation)
    return found


def _annotation(columns: list[str], where: str) -> Annotation | None:
    if len(columns) < COLUMNS or columns[0] not in TYPES:
        kinds = f"a type ({', '.join(TYPES)}) and {COLUMNS - 1} numbers"
        raise DataError(f"{where}: expected {kinds}, got {' '.join(columns)[:60]!r}")
    try:
        numbers = [float(column) for column in columns[1:COLUMNS]]
    except ValueError as error:
        raise DataError(f"{where}: {error}") from error
    if not all(map(math.isfinite, numbers)):
        raise DataError(f"{where}: {' '.join(columns)[:60]!r} holds nan or inf, and each column must be a number")
    kind, (truncated, occluded, _, x1, y1, x2, y2), distance = columns[0], numbers[:7], numbers[12]
    name = NEIGHBOURS.get(kind, kind)
    if kind != "DontCare" and name not in KITTIData.class_names:
        return None  # of another type: background
    return Annotation(
        name=None if kind == "DontCare" else name,
        box=(x1, y1, x2, y2),
        where=where,
        ignored=kind in NEIGHBOURS,
        truncation=truncated,
        occlusion=occluded,
        distance=distance if distance > 0 else float("nan"),
    )
