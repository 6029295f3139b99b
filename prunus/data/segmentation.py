"""The base class of segmentation data sets: three splits of (image, mask), normalisation, class frequencies."""

import abc
import contextlib
import functools
from typing import ClassVar, Literal

import torch

from prunus.compat import torchvision, transforms
from prunus.data.augmentation import Augmentation
from prunus.data.interface import Data, Split, SplitName
from prunus.data.source import CachedSource, Source, asking, check_mask, check_pair, check_pixels, pair_of
from prunus.errors import DataError, RecipeError
from prunus.interrupt import check

# ImageNet's statistics in RGB, in [0, 1]: the usual choice, and close enough for street scenes.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class SegmentationData(Data):
    """Settings of a data set for semantic segmentation; a final subclass is a frozen dataclass.

    A subclass names its classes and implements `source`; this class normalises, augments, caches and counts the class
    frequencies. An object keeps the data it has read, so create one and share it.
    """

    targets: ClassVar[Literal["masks"]] = "masks"
    palette: ClassVar[tuple[tuple[int, int, int], ...]]  # one RGB colour per class, 0 to 255
    ignore_index: ClassVar[int] = 255  # value of ignored pixels; a class number excludes that class

    size: tuple[int, int]  # (height, width) in pixels
    augmentation: Augmentation  # of the training split
    seed: int
    cache: bool  # keep decoded samples in memory: 4 bytes per pixel

    @abc.abstractmethod
    def source(self, split: SplitName) -> Source:
        """Return the raw samples of `split`, all of size `self.size`."""

    def class_frequencies(self) -> torch.Tensor:
        """Return each class's share of the training pixels that are not ignored, float32 [C], sum 1."""
        return self._frequencies.clone()

    def _check_ignored(self) -> None:
        if type(self.ignore_index) is not int or not 0 <= self.ignore_index <= 255:
            raise DataError(
                f"ignore_index of {type(self).__name__} is {self.ignore_index!r}, and masks are uint8: give a value "
                "from 0 to 255, and write it into the masks"
            )

    @functools.cached_property
    def _frequencies(self) -> torch.Tensor:
        self._check_ignored()
        source, counts = self._sources("train"), torch.zeros(256, dtype=torch.int64)
        tolerated = (DataError,) if self.on_error == "skip" else ()
        for index in range(len(source)):
            check()
            with contextlib.suppress(*tolerated):
                with asking(f"the mask of sample {index}"):
                    mask = source.mask(index)
                check_mask(mask, index)
                counts += torch.bincount(mask.flatten(), minlength=256)
        counts[self.ignore_index] = 0
        counts = counts[: len(self.class_names)]
        return (counts.double() / counts.sum().clamp(min=1)).float()

    def split(self, name: SplitName) -> "SegmentationDataset":
        """Return the split `name`; only the training split is augmented."""
        self._check_ignored()
        augment = self.augmentation.build(self.ignore_index) if name == "train" else None
        known = torch.zeros(256, dtype=torch.bool)
        known[: len(self.class_names)] = known[self.ignore_index] = True
        return SegmentationDataset(self._sources(name), known=known, augment=augment, seed=self.seed)

    @functools.cached_property
    def _known_sources(self) -> dict[SplitName, Source]:
        return {}

    def _sources(self, split: SplitName) -> Source:
        """Return the split's source, kept by this object so that files are read once."""
        known = self._known_sources
        if split not in known:
            with asking(f"the {split} split of {type(self).__name__}"):
                source = self.source(split)
                empty = not len(source)
            if empty:
                raise DataError(f"the {split} split of {type(self).__name__} holds no sample")
            known[split] = CachedSource(source, self.size) if self.cache else source
        return known[split]


class SegmentationDataset(Split):
    """One split: (normalised image, float32 [3, H, W]; mask, int64 [H, W], classes or ignore_index).

    `known`, bool [256], marks the values that a mask may hold.
    """

    def __init__(
        self, source: Source, *, known: torch.Tensor, augment: torch.nn.Module | None = None, seed: int = 0
    ) -> None:
        super().__init__(seed)
        self.source, self.known, self.augment = source, known, augment

    def __len__(self) -> int:
        return len(self.source)

    def sample(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the image and its mask, augmented together."""
        image, mask = pair_of(self.source, index)
        check_pair(image, mask)
        self._check_mask(mask, index)
        if self.augment is not None:
            image, mask = self.augment(torchvision.tv_tensors.Image(image), torchvision.tv_tensors.Mask(mask))
        return normalise(image), torch.as_tensor(mask).as_subclass(torch.Tensor).long()

    def picture(self, index: int) -> torch.Tensor:
        """Return the image as read: uint8 [3, H, W]."""
        image, _ = pair_of(self.source, index)
        check_pixels(image)
        return image

    def _check_mask(self, mask: torch.Tensor, index: int) -> None:
        known = self.known[mask.long()]
        if not bool(known.all()):
            allowed = ", ".join(map(str, self.known.nonzero().flatten().tolist()))
            raise DataError(
                f"the mask of sample {index} holds the value {int(mask[~known][0])}: a pixel is a class or void, that "
                f"is one of {allowed}"
            )


def normalise(image: torch.Tensor) -> torch.Tensor:
    """Return uint8 RGB images [..., 3, H, W] as float32, per channel (x / 255 - mean) / standard deviation."""
    check_pixels(image)
    scaled = transforms.functional.to_dtype(image.as_subclass(torch.Tensor), torch.float32, scale=True)
    normalised: torch.Tensor = transforms.functional.normalize(scaled, mean=list(MEAN), std=list(STD), inplace=True)
    return normalised


def to_picture(image: torch.Tensor) -> torch.Tensor:
    """Return normalised images [..., 3, H, W] as uint8 RGB: the inverse of `normalise`."""
    mean, std = (torch.tensor(values, device=image.device).reshape(3, 1, 1) for values in (MEAN, STD))
    return ((image.float() * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)


def to_colours(mask: torch.Tensor, palette: tuple[tuple[int, int, int], ...]) -> torch.Tensor:
    """Return masks [..., H, W] as uint8 RGB [..., 3, H, W]; values outside the palette become black."""
    colours = torch.zeros(len(palette) + 1, 3, dtype=torch.uint8, device=mask.device)
    colours[:-1] = torch.tensor(palette, dtype=torch.uint8)
    known = (mask >= 0) & (mask < len(palette))
    return colours[torch.where(known, mask.long(), len(palette))].movedim(-1, -3)


def check_size(size: tuple[int, int]) -> None:
    """Check an image size.

    Raises:
        RecipeError: `size` is not two integers of at least 8 pixels.
    """
    if len(size) != 2 or not all(isinstance(side, int) for side in size) or min(size) < 8:
        raise RecipeError(f"data.size is (height, width) in pixels, each at least 8, not {tuple(size)}")
