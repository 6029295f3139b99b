"""Pascal VOC's XML annotations, one file per image, with lists of images."""

import dataclasses
import math
from pathlib import Path
from typing import final

from prunus.data.annotations import AnnotatedFiles, Annotation, Checker, OnBadBox, held_back
from prunus.data.augmentation import DEFAULT_AUGMENTATION, Augmentation
from prunus.data.decode import MAX_PIXELS
from prunus.data.detection import DetectionData
from prunus.data.files import check_layout
from prunus.data.interface import OnError, SplitName
from prunus.data.listing import read_lines
from prunus.data.segmentation import check_size
from prunus.decoding import DecodingError, read_text
from prunus.errors import DataError, RecipeError
from prunus.markup import Element, from_xml

LAYOUT = """\
  train.txt valid.txt           "image annotation" per line: "images/road0.jpg annotations/road0.xml", or VOC's own
                                lists, a name per line: "000005" is JPEGImages/000005.jpg and Annotations/000005.xml
  label_list.txt                a class per line, unless data.classes names them"""
FLAGS = {"1": True, "true": True, "0": False, "false": False, "unspecified": False, "": False}


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class VOCData(DetectionData):
    """Object boxes in Pascal VOC's XML (Everingham et al. 2010); `difficult` objects are ignored regions.

    If `validation_list` is null, the last `validation_share` of the training list is held out.

    Raises:
        RecipeError: an invalid size (see `check_size`), or a share outside (0, 1).
        DataError: at first use, a missing or malformed file, or a bad box (named).
    """

    root: Path
    size: tuple[int, int] = (320, 320)  # (height, width); images keep their aspect ratio
    classes: tuple[str, ...] = ()  # class names; (): those in label_list.txt
    train_list: str = "train.txt"
    validation_list: str | None = None
    test_list: str = "valid.txt"
    validation_share: float = 0.1
    first_pixel: int = 1  # number of the first row and column: 1 in VOC's files, whose xmax and ymax are inclusive
    augmentation: Augmentation = DEFAULT_AUGMENTATION
    seed: int = 0  # of the augmentation
    cache: bool = True
    on_bad_box: OnBadBox = "raise"
    on_error: OnError = "raise"  # at an unreadable training image; "skip" uses the next one
    max_skipped: float = 0.01
    max_pixels: int = MAX_PIXELS  # a larger image is refused before it is decoded

    def __post_init__(self) -> None:
        check_size(self.size)
        if not 0 < self.validation_share < 1 or self.first_pixel not in (0, 1):
            raise RecipeError(
                f"data.validation_share is {self.validation_share} and must lie between 0 and 1, data.first_pixel is "
                f"{self.first_pixel} and must be 0 or 1"
            )

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes."""
        if self.classes:
            return self.classes
        root = Path(self.root)
        check_layout(root, LAYOUT, "label_list.txt")
        return tuple(line.strip() for _, line in read_lines(root / "label_list.txt"))

    def source(self, split: SplitName, checker: Checker) -> AnnotatedFiles:
        """Return the images in the split's list."""
        root = Path(self.root)
        names = {"train": self.train_list, "validation": self.validation_list, "test": self.test_list}
        listed = names[split] or self.train_list
        check_layout(root, LAYOUT, listed)
        pairs = _listed(root, root / listed)
        if split != "test" and self.validation_list is None:
            pairs = held_back(pairs, self.validation_share, str(root / listed))[split == "validation"]
        samples = [(image, annotations(file, self.first_pixel)) for image, file in pairs]
        return AnnotatedFiles(samples, checker, str(root / listed))


def annotations(path: Path, first_pixel: int = 1) -> list[Annotation]:
    """Return the objects in an XML file.

    Args:
        path: the file.
        first_pixel: the number of the first row and column, which is subtracted from (xmin, ymin).

    Raises:
        DataError: the file cannot be read, or is not a valid annotation; the message names the line.
    """
    try:
        root = from_xml(read_text(path))
    except FileNotFoundError as error:
        raise DataError(
            f"{path} does not exist, though its image is listed: add it, or remove the image from the list"
        ) from error
    except (OSError, DecodingError) as error:
        raise DataError(f"{path} cannot be read as an annotation: {error}") from error
    if root.tag != "annotation":
        raise DataError(f"{path}: expected the element <annotation>, found <{root.tag}>")
    size = _image_size(path, root)
    return [_object(path, each, first_pixel, size) for each in root.all("object")]


def _image_size(path: Path, root: Element) -> tuple[int, int] | None:
    """Return the image's (width, height) as stated; None if it is not stated, or as 0."""
    size = root.first("size")
    if size is None or size.first("width") is None or size.first("height") is None:
        return None
    width, height = (_number(path, size, tag) for tag in ("width", "height"))
    return (int(width), int(height)) if width > 0 and height > 0 else None


def _object(path: Path, element: Element, first_pixel: int, size: tuple[int, int] | None) -> Annotation:
    name, box = element.first("name"), element.first("bndbox")
    if name is None or box is None:
        raise DataError(f"{path}, line {element.line}: an <object> needs <name> and <bndbox>")
    if len(element.all("name") + element.all("bndbox")) > 2:
        raise DataError(f"{path}, line {element.line}: an <object> has one <name> and one <bndbox>; this one has more")
    x1, y1, x2, y2 = (_number(path, box, tag) for tag in ("xmin", "ymin", "xmax", "ymax"))
    return Annotation(
        name=name.text,
        box=(x1 - first_pixel, y1 - first_pixel, x2, y2),
        where=f"{path}, line {box.line}",
        ignored=_flag(path, element, "difficult"),
        truncation=float(_flag(path, element, "truncated")),
        image_size=size,
    )


def _number(path: Path, box: Element, tag: str) -> float:
    found = box.first(tag)
    try:
        value = float(found.text) if found is not None else math.nan
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        line = box.line if found is None else found.line
        raise DataError(
            f"{path}, line {line}: <{tag}> is {'missing' if found is None else repr(found.text)}, not a number"
        )
    return value


def _flag(path: Path, element: Element, tag: str) -> bool:
    found = element.first(tag)
    text = "" if found is None else found.text.lower()
    if found is not None and text not in FLAGS:
        raise DataError(f"{path}, line {found.line}: <{tag}> is {found.text!r}, and must be 0 or 1")
    return FLAGS[text]


def _listed(root: Path, path: Path) -> list[tuple[Path, Path]]:
    pairs = []
    for number, line in read_lines(path):
        names = line.split()
        if len(names) == 1 and "." not in names[0]:
            names = [f"JPEGImages/{names[0]}.jpg", f"Annotations/{names[0]}.xml"]
        if len(names) != 2:
            raise DataError(f'{path}, line {number}: expected "image annotation", got {line!r}')
        pairs.append((root / names[0], root / names[1]))
    return pairs
