"""Several targets for the same images: data sets read side by side, one per sub-task."""

import abc
import dataclasses
import itertools
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal, final

import torch

from prunus.data.interface import Data, OnError, Split, SplitName
from prunus.data.listing import listing_of
from prunus.errors import DataError, RecipeError

UNCOLOURED = (128, 128, 128)


class MultiTaskData(Data):
    """Settings of a data set with several targets per image; a final subclass is a frozen dataclass.

    A subclass implements `by_task`: one data set per sub-task, all with the same images in the same order. A target is
    then {sub-task: target}. All data sets draw their augmentation from the same random numbers, so their augmentation
    settings must be equal; each sample is checked for equal images.
    """

    targets: ClassVar[Literal["several"]] = "several"

    @abc.abstractmethod
    def by_task(self) -> Mapping[str, Data]:
        """Return the data set of each sub-task."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Class names of all sub-tasks, each prefixed with its sub-task: "detection: car"."""
        return tuple(f"{task}: {name}" for task, data in self.by_task().items() for name in data.class_names)

    @property
    def num_classes(self) -> dict[str, int]:
        """Number of classes of each sub-task."""
        return {task: len(data.class_names) for task, data in self.by_task().items()}

    @property
    def palette(self) -> tuple[tuple[int, int, int], ...]:  # type: ignore[override]
        """One RGB colour per class."""
        colours = ((data, data.palette or (UNCOLOURED,)) for data in self.by_task().values())
        return tuple(own[number % len(own)] for data, own in colours for number in range(len(data.class_names)))

    @property
    def on_error(self) -> OnError:  # type: ignore[override]
        """Skip unreadable training samples only if all data sets allow it."""
        return "skip" if all(data.on_error == "skip" for data in self.by_task().values()) else "raise"

    @property
    def max_skipped(self) -> float:  # type: ignore[override]
        """Share of the training samples that may be skipped: the smallest among the data sets."""
        return min(data.max_skipped for data in self.by_task().values())

    def notes(self) -> tuple[str, ...]:
        """Return the notes of all data sets."""
        return tuple(f"{task}: {note}" for task, data in self.by_task().items() for note in data.notes())

    def split(self, name: SplitName) -> "MultiTaskSplit":
        """Return the split `name` of all data sets side by side.

        Raises:
            DataError: the data sets have different numbers of images.
        """
        splits = {task: data.split(name) for task, data in self.by_task().items()}
        sizes = {task: len(split) for task, split in splits.items()}
        if len(set(sizes.values())) > 1:
            told = ", ".join(f"{task} has {size}" for task, size in sizes.items())
            raise DataError(
                f"the {name} splits of the sub-tasks have different numbers of images: {told}. Each must list the same "
                "images in the same order"
            )
        return MultiTaskSplit(splits)


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class CombinedData(MultiTaskData):
    """Data sets of the same images, each with the target of one sub-task.

    Attributes:
        parts: the data set of each sub-task; all with the same images in the same order, size and augmentation.

    Raises:
        RecipeError: `parts` is empty, or a part itself has several targets.
    """

    parts: dict[str, Data]

    def __post_init__(self) -> None:
        nested = [task for task, data in self.parts.items() if isinstance(data, MultiTaskData)]
        if nested or not self.parts:
            what = f"{nested[0]} has several targets itself" if nested else "none are given"
            raise RecipeError(f"data.parts names the data set of each sub-task, and {what}")

    def by_task(self) -> Mapping[str, Data]:
        """Return the data set of each sub-task."""
        return self.parts


class MultiTaskSplit(Split):
    """One split: (normalised image, float32 [3, H, W]; dictionary sub-task -> target)."""

    def __init__(self, splits: Mapping[str, Split]) -> None:
        super().__init__(seed=next(iter(splits.values())).seed)
        self.splits = dict(splits)
        self.source = _Listings([getattr(split, "source", None) for split in splits.values()])

    def __len__(self) -> int:
        return len(self._first)

    def sample(self, index: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the image and all targets.

        Raises:
            DataError: the data sets return different images.
        """
        image: torch.Tensor | None = None
        targets = dict[str, torch.Tensor]()
        for task, split in self.splits.items():
            with torch.random.fork_rng(devices=()):  # every data set draws the same augmentation
                own, targets[task] = split.sample(index)
            if image is not None and not torch.equal(image, own):
                first = next(iter(self.splits))
                raise DataError(
                    f"sample {index} is not the same image for the sub-tasks {first} {list(image.shape)} and {task} "
                    f"{list(own.shape)}: their data must list the same images in the same order, and agree in size, "
                    "seed of the images and augmentation"
                )
            image = own
        assert image is not None  # there is at least one sub-task
        return image, targets

    def picture(self, index: int) -> torch.Tensor:
        """Return the image of the first data set: uint8 [3, H, W]."""
        return self._first.picture(index)

    def conditions(self, index: int) -> tuple[str, ...]:
        """Return all conditions that the data sets name for the image."""
        return tuple(dict.fromkeys(tag for split in self.splits.values() for tag in split.conditions(index)))

    @property
    def _first(self) -> Split:
        return next(iter(self.splits.values()))


class _Listings:
    """The listings of several sources, joined line by line."""

    def __init__(self, sources: list[Any]) -> None:
        self.sources = sources

    def listing(self) -> Iterable[str]:
        """Yield one line per image: the lines of all sources."""
        lines = itertools.zip_longest(*map(listing_of, self.sources), fillvalue="")
        return (" ".join(filter(None, each)) for each in lines)
