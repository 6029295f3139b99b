"""Batches for training and evaluation, split among processes; training can resume in the middle of an epoch."""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from prunus.data.interface import Split
from prunus.errors import DataError, PrunusError
from prunus.shrink.processes import ALONE, Processes
from prunus.train.settings import Train
from prunus.train.workers import death_named, let_go_on_error, started, take_signals

Batch = tuple[Tensor, Any]  # images and target: a tensor, or a dictionary of tensors by sub-task


class Batches:
    """This process's part of an epoch's batches of indices, without the first `skip` batches.

    The order depends on (seed, epoch) alone, and the batches are the same for any number of processes: each
    takes an equal part of each batch. An incomplete last batch is dropped, since BatchNorm would estimate its
    statistics from few samples; a set smaller than one batch forms a single batch.

    Raises:
        DataError: a batch cannot be divided into equal parts.
    """

    def __init__(self, order: Tensor, batch_size: int, skip: int = 0, processes: Processes = ALONE) -> None:
        self.order, self.size, self.skip, self.processes = order, min(batch_size, len(order)), skip, processes
        if self.size % processes.count:
            raise DataError(
                f"a batch of {self.size} samples cannot be divided among {processes.count} processes: set "
                "train.batch_size, the total of all processes, to a multiple of their number"
            )

    def __len__(self) -> int:
        return len(self.order) // self.size - self.skip

    def __iter__(self) -> Iterator[list[int]]:
        for start in range(self.skip * self.size, len(self.order) - self.size + 1, self.size):
            yield self.processes.part(self.order[start : start + self.size].tolist())


def steps_per_epoch(num_samples: int, batch_size: int) -> int:
    """Return the number of batches of an epoch.

    Raises:
        DataError: there are no samples.
    """
    if num_samples == 0:
        raise DataError("the training split is empty: there is nothing to train on")
    return max(1, num_samples // batch_size)


def training_batches(
    split: Split, settings: Train, seed: int, epoch: int, skip: int, processes: Processes = ALONE
) -> Iterator[Batch]:
    """Yield the samples of an epoch's `Batches`."""
    split.set_epoch(epoch)
    order = split.order(torch.Generator().manual_seed(seed * 1_000_003 + epoch))
    return _plainly(_loader(split, settings, Batches(order, settings.batch_size, skip, processes)))


def evaluation_batches(split: Dataset[Batch], settings: Train, processes: Processes = ALONE) -> Iterator[Batch | None]:
    """Yield this process's batches of all samples, in order; each sample is in exactly one process's part.

    All processes get the same number of items; where one has no samples left, the item is None.

    Raises:
        DataError: there are fewer samples than processes.
    """
    num = len(split)  # type: ignore[arg-type]  # torch's Dataset leaves __len__ to its subclasses
    if num < processes.count:
        raise DataError(f"a split of {num} samples cannot be evaluated by {processes.count} processes: take fewer")
    own, size = processes.part(list(range(num))), settings.batch_size
    batches = [own[start : start + size] for start in range(0, len(own), size)]
    most = math.ceil(math.ceil(num / processes.count) / size)
    yield from _plainly(_loader(split, settings, batches))
    yield from [None] * (most - len(batches))


def _loader(split: object, settings: Train, batches: Iterable[list[int]]) -> DataLoader[Batch]:
    return DataLoader(
        split,  # type: ignore[arg-type]
        batch_sampler=batches,
        num_workers=settings.num_workers,
        worker_init_fn=take_signals,
        generator=torch.Generator(),  # else each loader would advance the global generator, which dropout uses
        pin_memory=settings.torch_device().type == "cuda",
    )


def _plainly(batches: DataLoader[Batch]) -> Iterator[Batch]:
    """Yield the batches; a worker's error keeps its message, without its traceback.

    Raises:
        DataError: a batch cannot be collated, or is not a pair of tensors.
    """
    try:
        with death_named(), let_go_on_error():
            for batch in started(batches):
                yield _pair(batch)
    except PrunusError as error:
        message = _in_worker(error)
        if message is None:
            raise
        raise type(error)(message) from error
    except Exception as error:  # any error of the user's own data set or of the collation
        message = _in_worker(error)
        raise DataError(
            f"a batch cannot be loaded ({type(error).__name__}: {error if message is None else message}): a data set "
            "gives each image and its target as tensors of one size and type"
        ) from error


def _in_worker(error: Exception) -> str | None:
    """Return the message that an error had in its worker; None where it is from no worker."""
    message = str(error)
    if not message.startswith("Caught "):
        return None
    return message.rpartition(f"{type(error).__qualname__}: ")[2].strip()


def _pair(batch: object) -> Batch:
    if isinstance(batch, tuple | list) and len(batch) == 2 and isinstance(batch[0], Tensor) and _is_target(batch[1]):
        return batch[0], batch[1]
    inside = ", ".join(type(part).__name__ for part in batch) if isinstance(batch, tuple | list) else ""
    raise DataError(
        f"a batch of the data set is a {type(batch).__name__}{f' of {inside}' if inside else ''}, and training takes "
        "a pair of tensors: let the data set give each image with one tensor or number as its target, or, for several "
        "tasks, a dictionary of these"
    )


def _is_target(target: object) -> bool:
    if isinstance(target, Mapping):
        return bool(target) and all(isinstance(each, Tensor) for each in target.values())
    return isinstance(target, Tensor)
