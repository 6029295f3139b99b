"""What a data set is to the rest: settings that give three splits, the names of the classes, what a target is."""

import abc
from collections.abc import Callable
from typing import ClassVar, Literal

import torch
from torch.utils.data import Dataset

from prunus.data.augmentation import seeded

SplitName = Literal["train", "validation", "test"]
Targets = Literal["masks", "labels"]


class Split(Dataset[tuple[torch.Tensor, torch.Tensor]], abc.ABC):
    """One split: (image float32 [channels, H, W], normalised; target int64).

    Works in any DataLoader. A random augmentation is drawn from (seed, epoch, index) alone, so a sample does
    not depend on the number of workers, on the order of the samples or on torch's random state. Call
    `set_epoch` before iterating, as with torch's DistributedSampler; the epoch lies in shared memory, so
    persistent workers see it too. torch's own random state is left as it was.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._epoch = torch.zeros(1, dtype=torch.int64)
        share: Callable[[], torch.Tensor] = self._epoch.share_memory_
        share()

    def set_epoch(self, epoch: int) -> None:
        """Draw other augmentations from now on; the same epoch gives the same ones."""
        self._epoch[0] = epoch

    @abc.abstractmethod
    def __len__(self) -> int:
        """Number of samples."""

    @abc.abstractmethod
    def sample(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the sample `index`, from 0 on; torch's random state is that of the sample."""

    @abc.abstractmethod
    def picture(self, index: int) -> torch.Tensor:
        """Return the image `index` as people look at it, before any augmentation: uint8 RGB [3, H, W]."""

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} in a split of {len(self)} samples")
        index %= len(self)
        with seeded(((self.seed * 1_000_003 + int(self._epoch)) * 1_000_003 + index) % 2**63):
            return self.sample(index)


class Data(abc.ABC):
    """Settings of a data set; a final subclass is a frozen dataclass."""

    targets: ClassVar[Targets]  # "masks": a class for each pixel; "labels": one for the image
    palette: ClassVar[tuple[tuple[int, int, int], ...]] = ()  # one RGB colour a class where there are masks

    @property
    @abc.abstractmethod
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their numbers."""

    @abc.abstractmethod
    def train(self) -> Split:
        """Return the training split, with augmentation."""

    @abc.abstractmethod
    def validation(self) -> Split:
        """Return the split on which choices are made."""

    @abc.abstractmethod
    def test(self) -> Split:
        """Return the split on which results are stated."""
