"""Tar shards in webdataset's format, for data sets larger than a disk, or read by many machines at once."""

import dataclasses
import functools
import io
import os
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar, Self, final

import numpy as np
import torch

from prunus.compat import torchvision
from prunus.data.classification import CROP_AND_FLIP, ClassificationData, ClassificationSplit, CropAndFlip
from prunus.data.decode import MAX_PIXELS
from prunus.data.files import check_layout, read_image
from prunus.data.interface import OnError, SplitName
from prunus.data.labelled import class_names, stretched
from prunus.data.segmentation import check_size
from prunus.data.shard_index import ShardIndex, write_index
from prunus.errors import DataError, RecipeError
from prunus.interrupt import output_of

LAYOUT = """\
  train-000000.tar ...          of pairs 000017.jpg (or .png .webp .tif ...) and 000017.cls, the number of its class
  val-000000.tar ...            or as `validation_prefix` and `test_prefix` say
  classes.json                  a list of the classes' names
  train-000000.json ...         their indices; made at the first use where the shards are local"""


class ShardSource:
    """Images from indexed shards; a missing shard is fetched when one of its samples is read.

    Args:
        root: the folder of shards and indices.
        prefix: of the shards' names.
        size: (height, width) to stretch to; None leaves images unchanged.
        fetch: a command with {name} and {path} that fetches a shard; None if all shards are in `root`.
        keep: number of shards to keep; after a fetch the oldest shards in `root` beyond it are deleted.
        shuffle: number of shards whose samples are shuffled together.
        max_pixels: a larger image is refused before it is decoded.

    Raises:
        DataError: no shards; when reading, a shard that cannot be fetched, or a truncated or invalid image.
    """

    def __init__(
        self,
        root: Path,
        prefix: str,
        *,
        size: tuple[int, int] | None,
        fetch: str | None,
        keep: int,
        shuffle: int,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self.root, self.size, self.fetch, self.keep, self.shuffle = root, size, fetch, keep, shuffle
        self.max_pixels = max_pixels
        names = {path.stem for pattern in (".tar", ".json") for path in root.glob(f"{prefix}-*{pattern}")}
        if not names:
            raise DataError(f"{root} holds no shard {prefix}-*.tar and no index. Expected there:\n{LAYOUT}")
        self.shards = sorted(names)
        indexes = [self._index(name) for name in self.shards]
        self.counts = torch.tensor([len(index.labels) for index in indexes])
        self.starts = self.counts.cumsum(0) - self.counts
        self._offsets = np.concatenate([index.offsets for index in indexes])
        self._sizes = np.concatenate([index.sizes for index in indexes])
        self._labels = np.concatenate([index.labels for index in indexes])

    @property
    def labels(self) -> Sequence[int]:
        """The class of each sample."""
        return self._labels  # type: ignore[return-value]  # an array serves as a sequence here

    def listing(self) -> Iterable[str]:
        """Yield each shard with the labels of its images."""
        for name, start, count in zip(self.shards, self.starts.tolist(), self.counts.tolist(), strict=True):
            yield f"{name} {self._labels[start : start + count].tolist()}"

    def __getitem__(self, index: int) -> torch.Tensor:
        shard = self.shards[int(torch.searchsorted(self.starts, index, right=True)) - 1]
        start, size = int(self._offsets[index]), int(self._sizes[index])
        with self._opened(shard) as file:
            if start + size > os.fstat(file.fileno()).st_size:
                raise DataError(f"{shard}.tar is cut short: sample {index} lies beyond the end; fetch it again")
            file.seek(start)
            content = file.read(size)
        pixels = read_image(io.BytesIO(content), f"{shard}.tar, sample {index}", self.max_pixels)
        return stretched(torchvision.tv_tensors.Image(torch.from_numpy(pixels).movedim(-1, 0)), self.size)

    def order(self, generator: torch.Generator) -> torch.Tensor:
        """Return all indices, int64 [N]: shards are permuted, then samples within each run of `shuffle` shards."""
        parts = []
        for group in torch.split(torch.randperm(len(self.shards), generator=generator), self.shuffle):
            spans = [torch.arange(int(self.starts[i]), int(self.starts[i] + self.counts[i])) for i in group]
            inside = torch.cat(spans)
            parts.append(inside[torch.randperm(len(inside), generator=generator)])
        return torch.cat(parts)

    def _index(self, name: str) -> ShardIndex:
        """Return a shard's index; rebuild it if it does not match the shard in `root`."""
        path, shard = self.root / f"{name}.json", self.root / f"{name}.tar"
        if not path.exists():
            self._opened(name).close()
            write_index(shard)
        index = ShardIndex.read(path)
        if shard.exists() and not index.is_of(shard.stat(), fetched=self.fetch is not None):
            write_index(shard)
            index = ShardIndex.read(path)
        return index

    def _opened(self, name: str) -> io.BufferedReader:
        path = self.root / f"{name}.tar"
        try:
            return path.open("rb")
        except FileNotFoundError as error:
            if self.fetch is None:
                raise DataError(f"{path} does not exist, and data.fetch is not set") from error
        aside = path.with_name(f".{path.name}.{os.getpid()}")
        command = [part.format(name=path.name, path=aside) for part in shlex.split(self.fetch)]
        done = output_of(command)
        if done.returncode or not aside.exists():
            raise DataError(f"{path.name} cannot be fetched by {shlex.join(command)}: {done.stderr.strip()[-300:]}")
        file = aside.open("rb")  # an open file stays readable even if another process removes it
        aside.replace(path)
        self._make_room()
        return file

    def _make_room(self) -> None:
        shards = sorted(self.root.glob("*.tar"), key=lambda path: path.stat().st_mtime_ns)
        for path in shards[: -self.keep]:
            path.unlink(missing_ok=True)


class ShardedSplit(ClassificationSplit):
    """A split that reads one group of shards after another."""

    source: ShardSource

    def order(self, generator: torch.Generator) -> torch.Tensor:
        """Return the indices of an epoch, in the order of the shards."""
        return self.source.order(generator)

    def weigh(self, weights: torch.Tensor) -> Self:
        """Refuse weights: shards are read in sequence.

        Raises:
            RecipeError: always.
        """
        raise RecipeError("protect.conditions: images in shards are read in their order and cannot be drawn by weight")


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardsData(ClassificationData):
    """Labelled images in tar shards (webdataset's format: Aizman, Maltby & Breuel 2019), read through an index.

    Any sample can be read at any time, so that training can resume in the middle of an epoch. An epoch reads groups of
    `shuffle` shards in sequence, with the samples of a group shuffled, so that a process needs few shards at a time.
    With `fetch`, shards are fetched when needed, and the oldest beyond `keep` are deleted: `root` must then contain no
    other .tar files.

    Raises:
        RecipeError: an invalid size (see `check_size`), or not 1 <= shuffle <= keep.
        DataError: at first use, a missing or malformed folder or file (named).
    """

    split_class: ClassVar[type[ClassificationSplit]] = ShardedSplit

    root: Path
    size: tuple[int, int] = (224, 224)  # (height, width)
    augmentation: CropAndFlip = CROP_AND_FLIP
    grey: bool = False
    seed: int = 0  # of the augmentation
    cache: bool = False  # keep decoded images in memory
    on_error: OnError = "raise"  # at an unreadable training image; "skip" uses the next one
    max_skipped: float = 0.01  # share of the training images that may be skipped
    max_pixels: int = MAX_PIXELS  # a larger image is refused before it is decoded
    validation_prefix: str = "val"  # of the shards' names
    test_prefix: str = "val"
    shuffle: int = 16  # number of shards whose samples are shuffled together
    fetch: str | None = None  # a command with {name} and {path} that fetches a shard; null: all are in `root`
    keep: int = 64  # number of shards to keep if they are fetched

    def __post_init__(self) -> None:
        check_size(self.size)
        if not 1 <= self.shuffle <= self.keep:
            raise RecipeError(f"data.shuffle is {self.shuffle} and data.keep {self.keep}: need 1 <= shuffle <= keep")

    @functools.cached_property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes."""
        check_layout(Path(self.root), LAYOUT, "classes.json")
        path = Path(self.root) / "classes.json"
        return class_names(path)

    def source(self, split: SplitName) -> ShardSource:
        """Return the images of the split's shards."""
        prefix = {"train": "train", "validation": self.validation_prefix, "test": self.test_prefix}[split]
        size = None if self.cropped else self.size
        return ShardSource(
            Path(self.root),
            prefix,
            size=size,
            fetch=self.fetch,
            keep=self.keep,
            shuffle=self.shuffle,
            max_pixels=self.max_pixels,
        )
