"""COCO's JSON annotations, the format of pycocotools."""

import dataclasses
import functools
import math
from pathlib import Path
from typing import Any, final

from prunus.data.annotations import AnnotatedFiles, Annotation, Checker, OnBadBox, held_back
from prunus.data.augmentation import DEFAULT_AUGMENTATION, Augmentation
from prunus.data.decode import MAX_PIXELS
from prunus.data.detection import DetectionData
from prunus.data.files import check_layout
from prunus.data.interface import OnError, SplitName
from prunus.data.segmentation import check_size
from prunus.decoding import MIB, DecodingError, Limits, from_json, read_text
from prunus.errors import DataError, RecipeError

LAYOUT = """\
  annotations/instances_train2017.json  annotations/instances_val2017.json
  train2017/  val2017/                  the images; data.train_file, data.train_images, ... name others"""
LIMITS = Limits(size=1024 * MIB, items=100_000_000)  # the file of COCO's training images has 470 MB


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class COCOData(DetectionData):
    """Object boxes in COCO's JSON (Lin et al., ECCV 2014); `iscrowd` regions are ignored.

    If `validation_file` is null, the last `validation_share` of the training images is held out. The labels of
    COCO's test images are not public, so the default test split is the published validation set.

    Raises:
        RecipeError: an invalid size (see `check_size`), or a share outside (0, 1).
        DataError: at first use, a missing or malformed file, or a bad box (named).
    """

    root: Path
    size: tuple[int, int] = (320, 320)  # (height, width); images keep their aspect ratio
    train_file: str = "annotations/instances_train2017.json"
    train_images: str = "train2017"
    validation_file: str | None = None
    validation_images: str = "val2017"
    test_file: str = "annotations/instances_val2017.json"
    test_images: str = "val2017"
    validation_share: float = 0.05
    augmentation: Augmentation = DEFAULT_AUGMENTATION
    seed: int = 0  # of the augmentation
    cache: bool = False
    on_bad_box: OnBadBox = "raise"
    on_error: OnError = "raise"  # at an unreadable training image; "skip" uses the next one
    max_skipped: float = 0.01
    max_pixels: int = MAX_PIXELS  # a larger image is refused before it is decoded

    def __post_init__(self) -> None:
        check_size(self.size)
        if not 0 < self.validation_share < 1:
            raise RecipeError(f"data.validation_share lies between 0 and 1, it is not {self.validation_share}")

    @functools.cached_property
    def class_names(self) -> tuple[str, ...]:
        """Names of the categories, in the order of their ids."""
        content = self._content(self.train_file)
        return tuple(str(name) for _, name in sorted(_by_id(content, "categories", "name").items()))

    def source(self, split: SplitName, checker: Checker) -> AnnotatedFiles:
        """Return the images of the split's file."""
        files: dict[SplitName, tuple[str, str]] = {
            "train": (self.train_file, self.train_images),
            "validation": (self.validation_file or self.train_file, self.validation_images),
            "test": (self.test_file, self.test_images),
        }
        file, images = files[split]
        held = split != "test" and self.validation_file is None
        folder = Path(self.root) / (self.train_images if held else images)
        samples = _samples(self._content(file), Path(self.root) / file, folder)
        if held:
            samples = held_back(samples, self.validation_share, str(Path(self.root) / file))[split == "validation"]
        return AnnotatedFiles(samples, checker, str(Path(self.root) / file))

    def _content(self, file: str) -> dict[str, Any]:
        path = Path(self.root) / file
        check_layout(Path(self.root), LAYOUT, file)
        try:
            content = from_json(read_text(path, LIMITS.size), LIMITS, without=("segmentation",))
        except (OSError, DecodingError) as error:
            raise DataError(f"{path} cannot be read as COCO's JSON: {error}") from error
        missing = [key for key in ("images", "annotations", "categories") if not _is_list(content, key)]
        if missing:
            raise DataError(
                f"{path}: COCO's JSON is an object with lists of objects; {missing[0]!r} is missing or not a list of "
                "objects"
            )
        return {**content, "path": path}


def _is_list(content: Any, key: str) -> bool:
    found = content.get(key) if isinstance(content, dict) else None
    return isinstance(found, list) and all(isinstance(each, dict) for each in found)


def _by_id(content: dict[str, Any], key: str, field: str) -> dict[int, Any]:
    """Return the id -> `field` mapping of the objects in the list `key`."""
    found = dict[int, Any]()
    for number, each in enumerate(content[key]):
        if type(each.get("id")) is not int or not isinstance(each.get(field), str):
            raise DataError(f"{content['path']}: {key}[{number}] needs a whole number as id, and {field!r} as text")
        if each["id"] in found:
            raise DataError(
                f"{content['path']}: {key}[{number}] has the id {each['id']}, which an earlier entry already has"
            )
        found[each["id"]] = each[field]
    return found


def _samples(content: dict[str, Any], path: Path, folder: Path) -> list[tuple[Path, list[Annotation]]]:
    names, categories = _by_id(content, "images", "file_name"), _by_id(content, "categories", "name")
    found: dict[int, list[Annotation]] = {number: [] for number in names}
    sizes = {each["id"]: _image_size(each) for each in content["images"]}
    for number, each in enumerate(content["annotations"]):
        where = f"{path}, annotations[{number}] (id {each.get('id')})"
        image, category = each.get("image_id"), each.get("category_id")
        if type(image) is not int or image not in found:
            raise DataError(f"{where} is of the image {image!r:.60}, which is not in the file's images")
        if type(category) is not int:
            raise DataError(f"{where}: category_id is {category!r:.60}, and must be a whole number")
        x, y, width, height = _box(each.get("bbox"), where)
        found[image].append(
            Annotation(
                name=categories.get(category, f"category_id {category}"),
                box=(x, y, x + width, y + height),
                where=where,
                ignored=_is_crowd(each.get("iscrowd"), where),
                image_size=sizes[image],
            )
        )
    return [(folder / name, found[number]) for number, name in names.items()]


def _image_size(image: dict[str, Any]) -> tuple[int, int] | None:
    """Return the image's (width, height) as stated; None if it is not."""
    width, height = image.get("width"), image.get("height")
    return (width, height) if type(width) is type(height) is int and width > 0 and height > 0 else None


def _is_crowd(value: Any, where: str) -> bool:
    if value is not None and not (isinstance(value, int) and value in (0, 1)):
        raise DataError(f"{where}: iscrowd is {value!r:.60}, and must be 0 or 1")
    return bool(value)


def _box(value: Any, where: str) -> list[float]:
    numbers = isinstance(value, list) and len(value) == 4 and all(type(each) in (int, float) for each in value)
    if not numbers or not all(map(math.isfinite, value)):
        raise DataError(f"{where}: bbox is {value!r:.60}, and must be [x, y, width, height]")
    return [float(each) for each in value]
