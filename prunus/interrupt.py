"""Ctrl-C and SIGTERM as a flag. A handler only sets it; whoever can stop asks for it.

An exception raised in a handler lands wherever Python happens to be: in a garbage collection's callback it is printed
and lost. So none is raised there:

    with whole_process():                     the command line, from its first import on
        check()                               every phase, measurement and file; raises `Interrupted`
        with interruptible() as interrupt:    a training, which asks `interrupt.number` itself and saves first

In a whole process a thread reads the signals too, from the file descriptor that Python's C code writes them to. It acts
even while the main thread is inside a long call: the second signal ends the process at once, and the first one after
`GRACE_S` seconds in which nobody asked; after `STEP_S` seconds in a training, whose step would be lost, or twice the
longest step so far if that is more. What is written aside and renamed stays whole then, as after a kill -9.
"""

import contextlib
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
GRACE_S = 5.0
STEP_S = 8.0
SAME_S = 0.5  # torchrun forwards a Ctrl-C that the terminal has sent to every process already
ASK_S = 0.2  # between two questions while a child runs
DONE = b"\0"  # no signal has this number
SHOW_CURSOR = b"\x1b[?25h"


class Interrupted(BaseException):
    """Somebody asked the process to stop. No `Exception`: nothing that handles errors takes it for one."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.signal = number


class Interrupt:
    """Whether a signal to stop has come.

    Attributes:
        signal: its number; None before one has come.
        came: when, by the monotonic clock.
        since: `came`, or when the last of those that ask `number` themselves was done.
        holds: how many of them are at work; `check` raises nothing meanwhile.
        asked: when `number` was last asked, or the first of them began.
        longest: seconds between two such questions so far.
        answered: whether one of them knows of the signal.
        before: the handlers that this one stands in for.
    """

    def __init__(self, holds: int = 0) -> None:
        self.signal: int | None = None
        self.came = self.since = self.longest = 0.0
        self.asked = time.monotonic()
        self.holds, self.answered = holds, False
        self.before: Mapping[int, Any] = {number: signal.getsignal(number) for number in SIGNALS}

    @property
    def number(self) -> int | None:
        """The signal's number, None before one has come: for those that save before they stop."""
        now = time.monotonic()
        self.longest, self.asked = max(self.longest, now - self.asked), now
        self.answered = self.signal is not None
        return self.signal

    def is_overdue(self) -> bool:
        """Whether a signal has come, and nobody has asked for longer than the process may take to end."""
        if self.signal is None or (self.holds and self.answered):
            return False
        most = max(STEP_S, 2 * self.longest) if self.holds else GRACE_S
        return time.monotonic() - self.since > most

    def note(self, number: int, frame: FrameType | None = None) -> None:
        """Note a signal; the first one counts."""
        if self.signal is None:
            self.came = self.since = time.monotonic()
            self.signal = number

    def restore(self) -> None:
        """Give the signals back to the handlers they had."""
        for number, handler in self.before.items():
            signal.signal(number, handler)


_current: Interrupt | None = None


def check() -> None:
    """Stop here if somebody asked for it and no training is at work, which stops by itself.

    Raises:
        Interrupted: with the signal's number.
    """
    if _current is not None and _current.signal is not None and not _current.holds:
        raise Interrupted(_current.signal)


@contextlib.contextmanager
def interruptible() -> Iterator[Interrupt]:
    """Turn SIGINT and SIGTERM into the flag `number`, which the body asks; `check` raises nothing meanwhile.

    Within `whole_process` the flag is the process's. Elsewhere the second signal does what it did before; and outside
    the main thread signals cannot be caught, and the flag stays down.
    """
    global _current
    outer = _current
    if outer is not None:
        if not outer.holds:
            outer.asked, outer.longest = time.monotonic(), 0.0
        outer.holds += 1
        try:
            yield outer
        finally:
            outer.since = time.monotonic()
            outer.holds -= 1
        return
    flag = Interrupt(holds=1)
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return

    def note(number: int, frame: FrameType | None) -> None:
        flag.note(number)
        signal.signal(number, flag.before[number])

    for number in SIGNALS:
        signal.signal(number, note)
    _current = flag
    try:
        yield flag
    finally:
        _current = None
        flag.restore()


@contextlib.contextmanager
def whole_process() -> Iterator[None]:
    """Let `check` stop what runs in the body; a second signal, and one that nobody asks for, end the process.

    Raises:
        Interrupted: also at the end of the body, where a signal came that nobody has asked for.
    """
    global _current
    if _current is not None or threading.current_thread() is not threading.main_thread():
        yield
        return
    flag = Interrupt()
    for number in SIGNALS:  # first of all: until then Python's own handler raises KeyboardInterrupt
        signal.signal(number, flag.note)
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    watcher = threading.Thread(target=_watch, args=(flag, reading), name="signals", daemon=True)
    watcher.start()
    waked = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    _current = flag
    try:
        yield
        check()
    finally:
        _current = None
        signal.set_wakeup_fd(waked)
        flag.restore()
        os.write(writing, DONE)  # forked children may hold the pipe open: closing it would not end the watcher
        watcher.join()
        os.close(writing)
        os.close(reading)


def _watch(flag: Interrupt, reading: int) -> None:
    while True:
        ready, _, _ = select.select([reading], [], [], None if flag.signal is None else ASK_S)
        content = os.read(reading, 64) if ready else b""
        if DONE in content:
            return
        for number in content:
            if number == flag.signal and time.monotonic() - flag.came > SAME_S:
                _end(number)
            if number in SIGNALS:
                flag.note(number)
        if flag.signal is not None and flag.is_overdue():
            _end(flag.signal)


def _end(number: int) -> None:
    """End the process now: nothing half-written has a final name."""
    with contextlib.suppress(OSError):
        os.write(2, (SHOW_CURSOR if os.isatty(2) else b"") + b"prunus: stopped at once; nothing was saved since\n")
    os._exit(128 + number)


def _forget() -> None:
    """In a forked child the signals are its own."""
    global _current
    flag, _current = _current, None
    if flag is not None:
        with contextlib.suppress(ValueError):  # forked by another thread than the main one
            signal.set_wakeup_fd(-1)
            flag.restore()


os.register_at_fork(after_in_child=_forget)


@contextlib.contextmanager
def delayed() -> Iterator[None]:
    """Hold signals back for a moment: a child that is forked meanwhile gets them once it has its own handlers."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def output_of(
    command: list[str], *, timeout_s: float | None = None, **settings: Any
) -> subprocess.CompletedProcess[str]:
    """Run `command` to its end and return what it printed; asked to stop, end it first.

    Raises:
        subprocess.TimeoutExpired: it took longer than `timeout_s` seconds; it is ended.
        Interrupted: as `check`.
    """
    end = None if timeout_s is None else time.monotonic() + timeout_s
    pipe, none = subprocess.PIPE, subprocess.DEVNULL
    with subprocess.Popen(command, stdin=none, stdout=pipe, stderr=pipe, text=True, **settings) as process:
        try:
            while True:
                check()
                if timeout_s is not None and end is not None and time.monotonic() > end:
                    raise subprocess.TimeoutExpired(command, timeout_s)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    output, errors = process.communicate(timeout=ASK_S)
                    return subprocess.CompletedProcess(command, process.returncode, output, errors)
        except BaseException:
            process.kill()
            raise
