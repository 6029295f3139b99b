"""Batches of an epoch that can be taken up again in its middle."""

import signal
from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from prunus.errors import DataError, PrunusError
from prunus.train.settings import Train

Batch = tuple[Tensor, Tensor]


class TrainingSplit(Protocol):
    """Training samples whose random augmentation follows from the epoch and the index."""

    def __len__(self) -> int:
        """Number of samples."""
        ...

    def __getitem__(self, index: int) -> Batch:
        """One sample: input and target."""
        ...

    def set_epoch(self, epoch: int) -> None:
        """Draw other augmentations from now on."""
        ...


def indices(num_samples: int, batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """Return the epoch's batches as lists of indices: a permutation drawn from (seed, epoch) alone.

    An incomplete last batch is left out, since BatchNorm would take its few samples for a whole batch; a set
    smaller than one batch is one batch.
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order = torch.randperm(num_samples, generator=generator).tolist()
    whole = max(1, num_samples // batch_size)
    return [order[start * batch_size : (start + 1) * batch_size] for start in range(whole)]


def steps_per_epoch(num_samples: int, batch_size: int) -> int:
    """Return the number of batches of an epoch.

    Raises:
        DataError: there are no samples.
    """
    if num_samples == 0:
        raise DataError("the training split is empty: there is nothing to train on")
    return max(1, num_samples // batch_size)


def training_batches(split: TrainingSplit, settings: Train, seed: int, epoch: int, skip: int) -> Iterator[Batch]:
    """Return an epoch's batches, the first `skip` left out."""
    split.set_epoch(epoch)
    batches = indices(len(split), settings.batch_size, seed, epoch)[skip:]
    return _plainly(_loader(split, settings, batches))


def evaluation_batches(split: Dataset[Batch], settings: Train) -> Iterator[Batch]:
    """Return all samples in order, in batches."""
    num = len(split)  # type: ignore[arg-type]  # torch's Dataset leaves __len__ to its subclasses
    size = settings.batch_size
    return _plainly(_loader(split, settings, [list(range(i, min(i + size, num))) for i in range(0, num, size)]))


def _loader(split: object, settings: Train, batches: Sequence[list[int]]) -> DataLoader[Batch]:
    return DataLoader(
        split,  # type: ignore[arg-type]
        batch_sampler=batches,
        num_workers=settings.num_workers,
        worker_init_fn=_ignore_interrupt,
        generator=torch.Generator(),  # else each loader takes a number off the random state that dropout draws from
        pin_memory=settings.torch_device().type == "cuda",
    )


def _plainly(batches: DataLoader[Batch]) -> Iterator[Batch]:
    """Yield the batches; an error from a worker says what it would say here, without the worker's traceback."""
    try:
        yield from batches
    except PrunusError as error:
        message = str(error)
        if not message.startswith("Caught "):
            raise
        raise type(error)(message.rpartition(f"{type(error).__qualname__}: ")[2].strip()) from error


def _ignore_interrupt(worker: int) -> None:
    """Leave Ctrl-C, which a terminal sends to all processes, to the main one: it finishes its step first."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
