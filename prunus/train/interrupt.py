"""Ctrl-C and SIGTERM as a flag that the loop looks at between steps."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from prunus.errors import TrainingError


class InterruptedTrainingError(TrainingError):
    """Somebody asked the training to stop; a checkpoint was written first."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.signal = number


class Interrupt:
    """Whether a signal to stop has come."""

    number: int | None = None


@contextlib.contextmanager
def interruptible() -> Iterator[Interrupt]:
    """Turn SIGINT and SIGTERM into the flag `number`; a second one does what it did before.

    Outside the main thread signals cannot be caught, and the flag stays down.
    """
    flag = Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, frame: FrameType | None) -> None:
        flag.number = number
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, note)
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
