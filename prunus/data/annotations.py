"""Objects as annotated in files, checks of them against the image and the classes, and image files with objects."""

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol, TypeVar, get_args

import torch

from prunus.boxes import EVERY, Objects
from prunus.data.decode import MAX_PIXELS, dimensions
from prunus.data.files import read_image
from prunus.data.listing import relative
from prunus.errors import DataError, RecipeError
from prunus.interrupt import check

T = TypeVar("T")
OnBadBox = Literal["raise", "clip", "skip"]
SKIP = 'set data.on_bad_box to "skip" (leaves such boxes out)'
REMEDIES = {
    "size": f"scale the boxes or put the image of that size there, and correct the size, or {SKIP}",
    "class": f"correct it, name the class among those of the data, or {SKIP}",
    "area": f'correct it, or {SKIP}; "clip" leaves it out, too',
    "outside": f'correct it, set data.on_bad_box to "clip" (cuts boxes at the border), or {SKIP}',
}


class BoxSource(Protocol):
    """Raw samples of one split; an index always gives the same sample."""

    @property
    def most(self) -> int:
        """The largest number of objects in an image, or an upper bound on it; at least 1."""
        ...

    def __len__(self) -> int:
        """Number of images."""
        ...

    def image(self, index: int) -> torch.Tensor:
        """Return the image, uint8 [3, H, W], RGB."""
        ...

    def image_size(self, index: int) -> tuple[int, int]:
        """Return the (height, width) of the image, if possible without decoding it."""
        ...

    def objects(self, index: int) -> Objects:
        """Return the objects in the image, in pixels of the unscaled image."""
        ...

    def conditions(self, index: int) -> tuple[str, ...]:
        """Return the conditions under which the image was taken; () if unknown."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Annotation:
    """One object as annotated in a file.

    Attributes:
        name: the class name; None for a region in which detections of any class are ignored.
        box: corners (x1, y1, x2, y2) in pixels of the image file, x2 and y2 exclusive.
        where: the file, and the line or entry in it.
        ignored: a detection of the object counts neither as correct nor as false.
        truncation, occlusion, distance: as in `prunus.boxes.Objects`.
        image_size: the image's (width, height) as the file states it; None if it does not.
    """

    name: str | None
    box: tuple[float, float, float, float]
    where: str
    ignored: bool = False
    truncation: float = 0.0
    occlusion: float = 0.0
    distance: float = math.nan
    image_size: tuple[int, int] | None = None


class Checker:
    """Checks annotations, and counts the clipped and the dropped boxes.

    Args:
        labels: class name -> class number.
        on_bad_box: "raise" refuses a box outside its image, without area, of an unknown class, or annotated in an image
            of another size; "clip" cuts boxes at the border, drops boxes without area, and refuses the others; "skip"
            drops every bad box.
        max_pixels: an image with more pixels is refused before it is decoded.

    Raises:
        RecipeError: an unknown `on_bad_box`.
    """

    def __init__(self, labels: Mapping[str, int], on_bad_box: OnBadBox, max_pixels: int = MAX_PIXELS) -> None:
        if on_bad_box not in get_args(OnBadBox):
            raise RecipeError(f"data.on_bad_box is {on_bad_box!r}; choose one of {', '.join(get_args(OnBadBox))}")
        self.labels, self.on_bad_box, self.max_pixels = labels, on_bad_box, max_pixels
        self.counts = Counter[str]()

    def checked(self, annotations: Sequence[Annotation], size: tuple[int, int]) -> Objects:
        """Return the objects of an image of `size` (width, height).

        Raises:
            DataError: a bad box that is neither clipped nor skipped; the message names its file and line.
        """
        found = [pair for each in annotations if (pair := self._one(each, size)) is not None]
        kept = [annotation for annotation, _ in found]
        labels = [EVERY if each.name is None else self.labels[each.name] for each in kept]
        return Objects(
            boxes=torch.tensor([box for _, box in found], dtype=torch.float32).reshape(len(kept), 4),
            labels=torch.tensor(labels, dtype=torch.int64),
            ignored=torch.tensor([each.ignored or each.name is None for each in kept], dtype=torch.bool),
            truncation=torch.tensor([each.truncation for each in kept], dtype=torch.float32),
            occlusion=torch.tensor([each.occlusion for each in kept], dtype=torch.float32),
            distance=torch.tensor([each.distance for each in kept], dtype=torch.float32),
        )

    def _one(
        self, annotation: Annotation, size: tuple[int, int]
    ) -> tuple[Annotation, tuple[float, float, float, float]] | None:
        """Return the annotation and its box inside the image; None if it is dropped."""
        problem = self._problem(annotation, size)
        if problem is None:
            return annotation, annotation.box
        kind, text = problem
        if self.on_bad_box == "raise" or (self.on_bad_box == "clip" and kind in ("class", "size")):
            raise DataError(f"{annotation.where}: the box {text}; {REMEDIES[kind]}")
        if self.on_bad_box == "clip" and kind == "outside":
            x1, y1, x2, y2 = annotation.box
            box = (max(x1, 0.0), max(y1, 0.0), min(x2, float(size[0])), min(y2, float(size[1])))
            if box[0] < box[2] and box[1] < box[3]:
                self.counts["clipped"] += 1
                return annotation, box
        self.counts[kind] += 1
        return None

    def _problem(self, annotation: Annotation, size: tuple[int, int]) -> tuple[str, str] | None:
        """Return the kind and description of an annotation's defect; None for a valid annotation."""
        x1, y1, x2, y2 = annotation.box
        place = f"x {x1:g} to {x2:g}, y {y1:g} to {y2:g}"
        if annotation.image_size not in (None, size):
            stated = "{} x {}".format(*annotation.image_size)
            return "size", f"is that of an image of {stated}, and the image has {size[0]} x {size[1]} (EXIF applied)"
        if annotation.name is not None and annotation.name not in self.labels:
            return "class", f"has the unknown class {annotation.name!r}; known: {', '.join(self.labels)}"
        if not (all(map(math.isfinite, annotation.box)) and x1 < x2 and y1 < y2):
            return "area", f"has no area: {place}"
        if x1 < 0 or y1 < 0 or x2 > size[0] or y2 > size[1]:
            return "outside", f"lies outside its image of {size[0]} x {size[1]}: {place}"
        return None

    def told(self) -> str:
        """Return the counts in words; "" if no box was changed."""
        names = {
            "clipped": "cut at the border of their image",
            "outside": "left out, outside their image",
            "area": "left out, without area",
            "class": "left out, of an unknown class",
            "size": "left out, of an image of another size",
        }
        return ", ".join(f"{self.counts[kind]} {text}" for kind, text in names.items() if self.counts[kind])


class AnnotatedFiles:
    """Image files and their objects; the constructor checks all annotations against the sizes in the image headers.

    Raises:
        DataError: no images, no object in any image, or an annotation that `Checker` refuses; when reading, a damaged
            file, or one whose size has changed.
    """

    def __init__(self, samples: Sequence[tuple[Path, Sequence[Annotation]]], checker: Checker, origin: str) -> None:
        if not samples:
            raise DataError(f"{origin} names no image")
        self.paths, self.max_pixels = tuple(path for path, _ in samples), checker.max_pixels
        self.sizes, self._objects = list[tuple[int, int]](), list[Objects]()
        for path, annotations in samples:
            check()
            self.sizes.append(dimensions(path, self.max_pixels))
            self._objects.append(checker.checked(annotations, self.sizes[-1]))
        self.most = max(1, *map(len, self._objects))
        if not any(bool((~objects.ignored).any()) for objects in self._objects):
            raise DataError(f"{origin} has {len(self.paths)} images but no object of its classes in them")

    def __len__(self) -> int:
        return len(self.paths)

    def image(self, index: int) -> torch.Tensor:
        """Return the image."""
        pixels = torch.from_numpy(read_image(self.paths[index], max_pixels=self.max_pixels)).movedim(-1, 0)
        if (pixels.shape[2], pixels.shape[1]) != self.sizes[index]:
            raise DataError(f"{self.paths[index]} was changed while it was in use: it has another size than before")
        return pixels

    def image_size(self, index: int) -> tuple[int, int]:
        """Return the (height, width) of the image."""
        width, height = self.sizes[index]
        return height, width

    def objects(self, index: int) -> Objects:
        """Return the objects in the image."""
        return self._objects[index]

    def conditions(self, index: int) -> tuple[str, ...]:
        """Return (): files do not name conditions."""
        return ()

    def listing(self) -> Iterable[str]:
        """Yield each image and its objects."""
        for path, objects in zip(relative(self.paths), self._objects, strict=True):
            yield f"{path} {objects.labels.tolist()} {objects.boxes.tolist()}"


def held_back(samples: Sequence[T], share: float, origin: str) -> tuple[list[T], list[T]]:
    """Return the training samples, and the last `share` of all samples, held out for validation.

    Raises:
        DataError: too few samples for both; the message names their `origin`.
    """
    number = max(1, round(share * len(samples)))
    if len(samples) == number:
        raise DataError(
            f"{origin} has {len(samples)} images, and {share:g} of them are held out for validation, at least one: "
            "none is left to train on. Give more, a smaller data.validation_share, or a validation set of its own"
        )
    return list(samples[:-number]), list(samples[-number:])
