"""The base class of classification data sets: three splits of (image, label), augmentation, normalisation."""

import abc
import dataclasses
import functools
from collections.abc import Sequence
from numbers import Integral
from typing import ClassVar, Literal

import torch

from prunus.compat import torchvision, transforms
from prunus.data.interface import Data, Split, SplitName
from prunus.data.labelled import CachedImages, LabelledSource
from prunus.data.segmentation import MEAN, STD
from prunus.data.source import asking, check_pixels
from prunus.errors import DataError, RecipeError

CENTRE = 0.875  # share of the shorter side in the test crop: 224 of 256 (Krizhevsky et al. 2012)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CropAndFlip:
    """Augmentation of training images; the default is the usual one for CIFAR (Lee et al. 2015).

    Raises:
        RecipeError: a value outside its range.
    """

    flip: float = 0.5  # probability of a left-right flip; 0 for signs and characters
    padding: int = 4  # black pixels added on each side before a random crop of the image's size
    area: tuple[float, float] | None = None  # share of the image in a random crop, then resized (ImageNet: 0.08, 1)
    brightness: float = 0.0  # factors are drawn from [1 - value, 1 + value]
    contrast: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.flip <= 1 or self.padding < 0:
            raise RecipeError(
                f"augmentation: flip {self.flip} is a probability, padding {self.padding} a number of pixels, 0 or more"
            )
        if self.area is not None and not 0 < self.area[0] <= self.area[1] <= 1:
            raise RecipeError(f"augmentation.area is a range (low, high) in (0, 1], not {self.area}")
        if not (0 <= self.brightness <= 1 and 0 <= self.contrast <= 1):
            raise RecipeError("augmentation: brightness and contrast lie in [0, 1]")

    def build(self, size: tuple[int, int]) -> torch.nn.Module:
        """Return the image transform (transforms.v2) that produces `size` (height, width)."""
        steps: list[torch.nn.Module] = []
        if self.area is not None:
            steps.append(transforms.RandomResizedCrop(list(size), scale=self.area, antialias=True))
        elif self.padding:
            steps.append(transforms.RandomCrop(list(size), padding=self.padding))
        if self.flip:
            steps.append(transforms.RandomHorizontalFlip(self.flip))
        if self.brightness or self.contrast:
            steps.append(transforms.ColorJitter(self.brightness, self.contrast))
        compose: torch.nn.Module = transforms.Compose(steps or [transforms.Identity()])
        return compose


CROP_AND_FLIP = CropAndFlip()
CROP_ONLY = CropAndFlip(flip=0.0)


class ClassificationData(Data):
    """Settings of a data set for classification; a final subclass is a frozen dataclass.

    A subclass names its classes and implements `source`; this class normalises, augments and caches. With
    `augmentation.area` images are cropped instead of stretched to `size`: at random in training, at the centre
    otherwise. The images of the source may then have any size, and are not cached.
    """

    targets: ClassVar[Literal["labels"]] = "labels"
    split_class: ClassVar[type["ClassificationSplit"]]  # set below to `ClassificationSplit`

    size: tuple[int, int]  # (height, width) in pixels
    augmentation: CropAndFlip  # of the training split
    grey: bool  # one channel instead of three
    seed: int
    cache: bool  # keep decoded images in memory: 3 bytes per pixel

    @abc.abstractmethod
    def source(self, split: SplitName) -> LabelledSource:
        """Return the raw images of `split`, all of size `self.size` unless `self.cropped`."""

    @property
    def cropped(self) -> bool:
        """Whether images are cropped instead of stretched."""
        return self.augmentation.area is not None

    def split(self, name: SplitName) -> "ClassificationSplit":
        """Return the split `name`; only the training split is augmented."""
        transform = self.augmentation.build(self.size) if name == "train" else self._centre()
        known = self._known_sources
        if name not in known:
            with asking(f"the {name} split of {type(self).__name__}"):
                source = self.source(name)
                labels = source.labels
                empty = not len(labels)
            if empty:
                raise DataError(f"the {name} split of {type(self).__name__} holds no image")
            _check_labels(labels, self.class_names, name)
            known[name] = CachedImages(source, self.size) if self.cache and not self.cropped else source
        return self.split_class(known[name], transform=transform, grey=self.grey, seed=self.seed)

    def _centre(self) -> torch.nn.Module | None:
        if not self.cropped:
            return None
        shorter = round(min(self.size) / CENTRE)
        resize = transforms.Resize([shorter], antialias=True)
        compose: torch.nn.Module = transforms.Compose([resize, transforms.CenterCrop(list(self.size))])
        return compose

    @functools.cached_property
    def _known_sources(self) -> dict[SplitName, LabelledSource]:
        return {}


def _check_labels(labels: Sequence[int], names: Sequence[str], split: SplitName) -> None:
    """Refuse labels that are not the number of a class."""
    known = range(len(names))
    wrong = next((i for i, label in enumerate(labels) if not (isinstance(label, Integral) and label in known)), None)
    if wrong is not None:
        raise DataError(
            f"the {split} split's sample {wrong} has the label {labels[wrong]!r}, and there are {len(names)} classes, "
            f"numbered from 0 to {len(names) - 1}"
        )


class ClassificationSplit(Split):
    """One split: (normalised image, float32 [3 or 1, H, W]; label, int64 scalar)."""

    def __init__(
        self, source: LabelledSource, *, transform: torch.nn.Module | None = None, grey: bool = False, seed: int = 0
    ) -> None:
        super().__init__(seed)
        self.source, self.transform, self.grey = source, transform, grey

    def __len__(self) -> int:
        return len(self.source.labels)

    def sample(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the image, transformed and normalised, and its label."""
        image = self.picture(index)
        if self.transform is not None:
            image = self.transform(torchvision.tv_tensors.Image(image)).as_subclass(torch.Tensor)
        scaled = transforms.functional.to_dtype(image, torch.float32, scale=True)
        mean, deviation = torch.tensor(MEAN).reshape(3, 1, 1), torch.tensor(STD).reshape(3, 1, 1)
        if self.grey:
            scaled = transforms.functional.rgb_to_grayscale(scaled)
            mean, deviation = mean.mean(0, keepdim=True), deviation.mean(0, keepdim=True)
        return (scaled - mean) / deviation, torch.tensor(int(self.source.labels[index]))

    def picture(self, index: int) -> torch.Tensor:
        """Return the image as read: uint8 [3, H, W]."""
        with asking(f"image {index}"):
            image = self.source[index]
        check_pixels(image)
        return image


ClassificationData.split_class = ClassificationSplit
