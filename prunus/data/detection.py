"""The base class of detection data sets: three splits of (image, rows of objects), scaled, augmented, normalised."""

import abc
import dataclasses
import functools
from collections.abc import Iterable, Sequence
from typing import ClassVar, Literal

import torch

from prunus.boxes import Objects
from prunus.compat import torchvision, transforms
from prunus.data.annotations import BoxSource, Checker, OnBadBox
from prunus.data.augmentation import Augmentation
from prunus.data.decode import MAX_PIXELS
from prunus.data.interface import Data, Split, SplitName
from prunus.data.listing import listing_of
from prunus.data.object_checks import check_image_size, check_objects
from prunus.data.segmentation import normalise
from prunus.data.source import PixelCache, asking, check_pixels
from prunus.errors import DataError

VISIBLE = 0.25  # share of a box that must stay inside the image under augmentation


class DetectionData(Data):
    """Settings of a data set for object detection; a final subclass is a frozen dataclass.

    A subclass names its classes and implements `source`. Images keep their aspect ratio: each is scaled to fit into
    `size` and padded with black at the right and at the bottom. A target is float32 [M, 10] (`prunus.boxes.COLUMNS`),
    where M is the largest number of objects in any image of the split.
    """

    targets: ClassVar[Literal["boxes"]] = "boxes"
    palette: ClassVar[tuple[tuple[int, int, int], ...]] = (
        (230, 60, 50), (40, 130, 230), (60, 180, 75), (245, 170, 30), (150, 80, 200), (60, 200, 200), (240, 90, 170),
        (150, 120, 60), (170, 200, 40), (110, 110, 240), (200, 120, 100), (80, 150, 110),
    )  # fmt: skip

    size: tuple[int, int]  # (height, width) in pixels
    augmentation: Augmentation  # of the training split
    seed: int
    cache: bool  # keep scaled images in memory: 3 bytes per pixel
    max_pixels: int = MAX_PIXELS  # a larger image is refused before it is decoded
    on_bad_box: OnBadBox = "raise"  # for a box outside its image, without area or of an unknown class

    @abc.abstractmethod
    def source(self, split: SplitName, checker: Checker) -> BoxSource:
        """Return the raw samples of `split`, their annotations checked by `checker`."""

    def split(self, name: SplitName) -> "DetectionSplit":
        """Return the split `name`; only the training split is augmented."""
        source, _ = self._sources(name)
        augment = self.augmentation.build(0) if name == "train" else None
        return DetectionSplit(source, augment=augment, seed=self.seed)

    def notes(self) -> tuple[str, ...]:
        """Return, per split, how many bad boxes were clipped or dropped."""
        found: dict[SplitName, str] = {name: self._sources(name)[1].told() for name in ("train", "validation", "test")}
        return tuple(f"Boxes of the {name} split: {told}." for name, told in found.items() if told)

    @functools.cached_property
    def _known_sources(self) -> dict[SplitName, tuple["ScaledImages", Checker]]:
        return {}

    def _sources(self, name: SplitName) -> tuple["ScaledImages", Checker]:
        """Return the split's source and its checker, kept by this object so that files are read once."""
        if name not in self._known_sources:
            labels = _labels(self.class_names)
            checker = Checker(labels, self.on_bad_box, self.max_pixels)
            with asking(f"the {name} split of {type(self).__name__}"):
                source = self.source(name, checker)
                empty = not len(source)
            if empty:
                raise DataError(f"the {name} split of {type(self).__name__} holds no image")
            scaled = ScaledImages(source, self.size, num_classes=len(labels), cache=self.cache)
            self._known_sources[name] = scaled, checker
        return self._known_sources[name]


def _labels(names: Sequence[str]) -> dict[str, int]:
    """Return class name -> class number.

    Raises:
        DataError: there are no classes, one has no name, or two have the same name.
    """
    if blank := [number for number, name in enumerate(names) if not name.strip()]:
        raise DataError(f"the data set's class {blank[0]} has no name: give each class one name")
    labels = {name: number for number, name in enumerate(names)}
    if not names or len(labels) != len(names):
        twice = ", ".join(name for name in labels if list(names).count(name) > 1)
        problem = f"names class {twice} twice" if names else "has no classes"
        raise DataError(f"the data set {problem}: give each class one name")
    return labels


class ScaledImages:
    """The images and objects of `source`, scaled to fit into `size` (height, width) and padded with black."""

    def __init__(self, source: BoxSource, size: tuple[int, int], *, num_classes: int, cache: bool) -> None:
        self.source, self.size, self.num_classes = source, tuple(size), num_classes
        with asking("the largest number of objects"):
            self.most = max(1, int(source.most))
        self._cache = PixelCache(len(source), 3, *size) if cache else None

    def __len__(self) -> int:
        return len(self.source)

    def listing(self) -> Iterable[str]:
        """Return the listing of the source."""
        return listing_of(self.source)

    def conditions(self, index: int) -> tuple[str, ...]:
        """Return the conditions under which the image was taken."""
        return self.source.conditions(index)

    def image(self, index: int) -> torch.Tensor:
        """Return the image, uint8 [3, H, W], at `size`."""
        return self._read(index) if self._cache is None else self._cache.get(index, self._read)

    def objects(self, index: int) -> Objects:
        """Return the objects, in pixels of the scaled image."""
        with asking(f"the objects of image {index}"):
            objects = self.source.objects(index)
        check_objects(objects, index, self.num_classes, self.most)
        scale = self._scale(*self._image_size(index))
        return dataclasses.replace(objects, boxes=objects.boxes * scale, scale=objects.scale * scale)

    def _image_size(self, index: int) -> tuple[int, int]:
        with asking(f"the size of image {index}"):
            size = self.source.image_size(index)
        check_image_size(size, index)
        height, width = size
        return height, width

    def _scale(self, height: int, width: int) -> float:
        return min(self.size[0] / height, self.size[1] / width)

    def _read(self, index: int) -> torch.Tensor:
        with asking(f"image {index}"):
            image = self.source.image(index)
        check_pixels(image)
        height, width = image.shape[-2:]
        if (stated := self._image_size(index)) != (height, width):
            raise DataError(
                f"image {index} has {height} x {width} pixels, and its source states {stated[0]} x {stated[1]}"
            )
        scale = self._scale(height, width)
        inner = [max(1, round(height * scale)), max(1, round(width * scale))]
        if inner != [height, width]:
            image = transforms.functional.resize(torchvision.tv_tensors.Image(image), inner, antialias=True)
        padded = image.new_zeros(3, *self.size).as_subclass(torch.Tensor)
        padded[:, : inner[0], : inner[1]] = image
        return padded


class DetectionSplit(Split):
    """One split: (normalised image, float32 [3, H, W]; objects, float32 [M, 10], see `prunus.boxes`)."""

    def __init__(self, source: ScaledImages, *, augment: torch.nn.Module | None = None, seed: int = 0) -> None:
        super().__init__(seed)
        self.source, self.augment = source, augment

    def __len__(self) -> int:
        return len(self.source)

    def sample(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the image and its objects, augmented together."""
        image, objects = self.source.image(index), self.source.objects(index)
        if self.augment is not None:
            image, objects = augmented(image, objects, self.augment)
        return normalise(image), objects.rows(self.source.most)

    def picture(self, index: int) -> torch.Tensor:
        """Return the scaled image: uint8 [3, H, W]."""
        return self.source.image(index)


def augmented(image: torch.Tensor, objects: Objects, augment: torch.nn.Module) -> tuple[torch.Tensor, Objects]:
    """Apply a transform of transforms.v2 to an image and its objects; boxes are cut at the border.

    A box with less than the share `VISIBLE` of its area inside the image becomes an ignored region.
    """
    kind, size = torchvision.tv_tensors.BoundingBoxes, image.shape[-2:]
    boxes = kind(objects.boxes, format="XYXY", canvas_size=tuple(size), clamping_mode=None)
    image, moved = augment(torchvision.tv_tensors.Image(image), boxes)
    moved = moved.as_subclass(torch.Tensor)
    limit = torch.tensor([size[1], size[0]] * 2)
    cut = moved.clamp(min=0).minimum(limit)
    area = [((each[:, 2:] - each[:, :2]).clamp(min=0)).prod(1) for each in (cut, moved)]
    hidden = area[0] < VISIBLE * area[1]
    changed = dataclasses.replace(objects, boxes=cut, ignored=objects.ignored | hidden)
    return image.as_subclass(torch.Tensor), changed.chosen(area[0] > 0)
