"""The interface of data sets: settings that provide three splits, the class names and the kind of target."""

import abc
from collections.abc import Callable
from typing import Any, ClassVar, Literal, Self

import torch
from torch.utils.data import Dataset

from prunus.data.augmentation import seeded
from prunus.data.listing import conditions_at
from prunus.errors import DataError, RecipeError
from prunus.interrupt import check

SplitName = Literal["train", "validation", "test"]
Targets = Literal["masks", "labels", "boxes", "several"]
OnError = Literal["raise", "skip"]


class Split(Dataset[tuple[torch.Tensor, Any]], abc.ABC):
    """One split: (normalised image, float32 [channels, H, W]; target, a tensor or a dictionary sub-task -> tensor).

    Works in any DataLoader. A random augmentation is drawn from (seed, epoch, index) alone, so a sample does
    not depend on the number of workers, on the order of the samples or on torch's random state, which stays
    unchanged. Call `set_epoch` before iterating, as with torch's DistributedSampler; the epoch is kept in shared
    memory, so persistent workers see it too.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._epoch = torch.zeros(1, dtype=torch.int64)
        _share(self._epoch)
        self._unreadable: torch.Tensor | None = None
        self._most = 0
        self._weights: torch.Tensor | None = None

    def set_epoch(self, epoch: int) -> None:
        """Draw the augmentations of `epoch` from now on; they depend on the epoch only."""
        self._epoch[0] = epoch

    def order(self, generator: torch.Generator) -> torch.Tensor:
        """Return the indices of an epoch, int64 [N]: shuffled, or if there are weights, drawn with replacement."""
        if self._weights is not None:
            return torch.multinomial(self._weights, len(self), replacement=True, generator=generator)
        return torch.randperm(len(self), generator=generator)

    def weigh(self, weights: torch.Tensor) -> Self:
        """Draw images with replacement, in proportion to `weights`, float [N], from now on; return the split."""
        self._weights = weights
        return self

    def tolerate(self, share: float) -> Self:
        """Replace unreadable samples, up to `share` of all, by the next readable sample; return the split.

        Raises:
            RecipeError: a share outside (0, 1).
        """
        if not 0 < share < 1:
            raise RecipeError(f"data.max_skipped is a share of the samples, between 0 and 1, not {share}")
        self._unreadable = torch.zeros(len(self), dtype=torch.bool)  # shared with the worker processes
        _share(self._unreadable)
        self._most = int(share * len(self))
        return self

    def unreadable(self) -> list[str]:
        """Return the error message of each sample that could not be read so far."""
        said = []
        for index in [] if self._unreadable is None else self._unreadable.nonzero().flatten().tolist():
            try:
                self.sample(index)
            except DataError as error:
                said.append(str(error))
        return said

    @abc.abstractmethod
    def __len__(self) -> int:
        """Number of samples."""

    @abc.abstractmethod
    def sample(self, index: int) -> tuple[torch.Tensor, Any]:
        """Return the sample `index`, from 0; the caller has seeded torch's random state."""

    @abc.abstractmethod
    def picture(self, index: int) -> torch.Tensor:
        """Return the image `index` for display, without augmentation: uint8 RGB [3, H, W]."""

    def conditions(self, index: int) -> tuple[str, ...]:
        """Return the conditions under which the image was taken ("night"); () if unknown."""
        return conditions_at(getattr(self, "source", None), index)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, Any]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} in a split of {len(self)} samples")
        while True:
            check()
            index %= len(self)
            try:
                with seeded(((self.seed * 1_000_003 + int(self._epoch)) * 1_000_003 + index) % 2**63):
                    return self.sample(index)
            except DataError as error:
                if self._unreadable is None:
                    raise
                self._unreadable[index] = True
                if int(self._unreadable.sum()) > self._most:
                    raise DataError(
                        f"{int(self._unreadable.sum())} of {len(self)} samples cannot be read, and data.max_skipped "
                        f"allows {self._most}; the last: {error}"
                    ) from error
            index += 1


def _share(tensor: torch.Tensor) -> None:
    """Move a tensor to memory shared with the processes that load data.

    Raises:
        DataError: the system has no shared memory or no file descriptor left.
    """
    share: Callable[[], torch.Tensor] = tensor.share_memory_
    try:
        share()
    except RuntimeError as error:
        raise DataError(
            f"there is no shared memory for the processes that load data ({error}): make room in /dev/shm, or allow "
            "more open files (ulimit -n)"
        ) from error


class Data(abc.ABC):
    """Settings of a data set; a final subclass is a frozen dataclass.

    A reader of files also declares the fields `on_error` and `max_skipped`. With "skip", an unreadable training sample
    is replaced by the next readable sample and named in the run's records; the training stops if more than the share
    `max_skipped` is unreadable. Validation and test samples must be readable, so that metrics cover the whole set. A
    reader of files also declares `max_pixels`, which its source passes to `read_image`.
    """

    on_error: OnError = "raise"
    max_skipped: float = 0.01

    targets: ClassVar[Targets]  # "masks": one class per pixel; "labels": one per image; "boxes"; "several"
    palette: ClassVar[tuple[tuple[int, int, int], ...]] = ()  # one RGB colour per class, for masks

    @property
    @abc.abstractmethod
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their numbers."""

    @property
    def num_classes(self) -> int | dict[str, int]:
        """Number of classes for which the network is built; a dictionary by sub-task if there are several."""
        return len(self.class_names)

    @abc.abstractmethod
    def split(self, name: SplitName) -> Split:
        """Return the split `name`; only the training split is augmented."""

    def notes(self) -> tuple[str, ...]:
        """Return notes on the data for the run's report."""
        return ()

    def train(self) -> Split:
        """Return the training split, with augmentation."""
        split = self.split("train")
        return split.tolerate(self.max_skipped) if self.on_error == "skip" else split

    def validation(self) -> Split:
        """Return the split on which choices are based."""
        return self.split("validation")

    def test(self) -> Split:
        """Return the split on which results are reported."""
        return self.split("test")
