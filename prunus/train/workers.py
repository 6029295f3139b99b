"""The processes that load data: started with signals held back, and named when one dies."""

import contextlib
import re
import signal
import traceback
from collections.abc import Iterator
from types import FrameType
from typing import TypeVar

from torch.utils.data import DataLoader

from prunus.errors import DataError
from prunus.interrupt import SIGNALS, delayed

T_co = TypeVar("T_co", covariant=True)


def started(batches: DataLoader[T_co]) -> Iterator[T_co]:
    """Return the iterator over `batches`; its workers, forked here, get no signal before they have their own handlers.

    Raises:
        DataError: the system cannot start the processes.
    """
    try:
        with delayed():
            return iter(batches)
    except OSError as error:
        raise DataError(
            f"{batches.num_workers} processes that load data cannot be started ({error.strerror}): set a smaller "
            "train.num_workers"
        ) from error


def take_signals(worker: int) -> None:
    """Let a worker ignore the SIGINT and first SIGTERM that a terminal or scheduler sends to all processes: the main
    process first finishes its step, for which it needs the worker. A second SIGTERM ends the worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _once)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _once(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)


@contextlib.contextmanager
def let_go_on_error() -> Iterator[None]:
    """Release torch's iterator where an error leaves the block, so that its workers end at once.

    The error's frames and the iterator in them refer to each other. If they are collected as a cycle, the iterator's
    queues close before it tells its workers to end, and torch waits five seconds for each (2.9 to 2.13).
    """
    try:
        yield
    except Exception as error:
        traceback.clear_frames(error.__traceback__)
        raise


@contextlib.contextmanager
def death_named() -> Iterator[None]:
    """Turn torch's error for a dead worker, which is raised wherever the main process is, into a `DataError`."""
    try:
        yield
    except RuntimeError as error:
        found = re.search(r"DataLoader worker \(pid\(?s?\)? ?([\d, ]+)\) (.*)", str(error))
        if found is None:
            raise
        raise DataError(
            f"a process that loads data ({found[1]}) has died: {found[2].strip()} Usually the machine has run out of "
            "memory: set a smaller train.num_workers or train.batch_size, or data.cache: false; the same command "
            "resumes from the last checkpoint"
        ) from error
