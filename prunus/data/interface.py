"""The interface of data sets: settings that give three splits, the names of the classes, the kind of target."""

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
    """One split: (image float32 [channels, H, W], normalised; target, a tensor or a dictionary of them by sub-task).

    Works in any DataLoader. A random augmentation is drawn from (seed, epoch, index) alone, so a sample does
    not depend on the number of workers, on the order of the samples or on torch's random state. Call
    `set_epoch` before iterating, as with torch's DistributedSampler; the epoch lies in shared memory, so
    persistent workers see it too. torch's own random state is left as it was.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._epoch = torch.zeros(1, dtype=torch.int64)
        _share(self._epoch)
        self._unreadable: torch.Tensor | None = None
        self._most = 0
        self._weights: torch.Tensor | None = None

    def set_epoch(self, epoch: int) -> None:
        """Draw other augmentations from now on; the same epoch gives the same ones."""
        self._epoch[0] = epoch

    def order(self, generator: torch.Generator) -> torch.Tensor:
        """Return the indices of an epoch, int64 [N]: shuffled; with weights, N drawn by weight, with replacement."""
        if self._weights is not None:
            return torch.multinomial(self._weights, len(self), replacement=True, generator=generator)
        return torch.randperm(len(self), generator=generator)

    def weigh(self, weights: torch.Tensor) -> Self:
        """Draw each image in proportion to its weight, float [N], with replacement, from now on; return the split."""
        self._weights = weights
        return self

    def tolerate(self, share: float) -> Self:
        """Replace samples that cannot be read, up to `share` of all, by the next that can; return the split.

        Raises:
            RecipeError: a share outside (0, 1).
        """
        if not 0 < share < 1:
            raise RecipeError(f"data.max_skipped is a share of the samples, between 0 and 1, not {share}")
        self._unreadable = torch.zeros(len(self), dtype=torch.bool)  # shared, so that workers' finds are seen
        _share(self._unreadable)
        self._most = int(share * len(self))
        return self

    def unreadable(self) -> list[str]:
        """Return what is wrong with each sample that could not be read so far."""
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
        """Return the sample `index`, from 0 on; torch's random state is that of the sample."""

    @abc.abstractmethod
    def picture(self, index: int) -> torch.Tensor:
        """Return the image `index` as people look at it, before any augmentation: uint8 RGB [3, H, W]."""

    def conditions(self, index: int) -> tuple[str, ...]:
        """Return the conditions under which the image was taken ("night"); () where nothing is known."""
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
    """Let the processes that load data see a tensor's values.

    Raises:
        DataError: the system has no shared memory left, or no file for it.
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

    A reader of files declares `on_error` and `max_skipped` as fields too. With "skip", a training sample that cannot be
    read is replaced by the next that can, and the run's records name it; more than the share `max_skipped` of them
    stop the training. Validation and test samples must be readable: their metrics are those of the whole set. It also
    declares `max_pixels`, which its source hands to `read_image`.
    """

    on_error: OnError = "raise"
    max_skipped: float = 0.01

    targets: ClassVar[Targets]  # "masks": a class for each pixel; "labels": one for the image; "boxes"; "several"
    palette: ClassVar[tuple[tuple[int, int, int], ...]] = ()  # one RGB colour a class where there are masks

    @property
    @abc.abstractmethod
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their numbers."""

    @property
    def num_classes(self) -> int | dict[str, int]:
        """Number of classes, which the network is built for; of each sub-task where there are several."""
        return len(self.class_names)

    @abc.abstractmethod
    def split(self, name: SplitName) -> Split:
        """Return the split `name`; that for training with augmentation."""

    def notes(self) -> tuple[str, ...]:
        """Return what a reader of the run's report must know of the data."""
        return ()

    def train(self) -> Split:
        """Return the training split, with augmentation."""
        split = self.split("train")
        return split.tolerate(self.max_skipped) if self.on_error == "skip" else split

    def validation(self) -> Split:
        """Return the split on which choices are made."""
        return self.split("validation")

    def test(self) -> Split:
        """Return the split on which results are stated."""
        return self.split("test")
