"""Ctrl-C and SIGTERM as a flag: the handler only sets it, and code that can stop polls it.

An exception raised in a handler is raised wherever Python is: in a garbage collection's callback it is printed
and lost. So the handlers here raise none:

    with whole_process():                     the command line, from its first import on
        check()                               every phase, measurement and file; raises `Interrupted`
        with interruptible() as interrupt:    a training, which polls `interrupt.number` and saves first

In a whole process a thread also reads the signals, from the file descriptor to which Python's C code writes them. It
acts even while the main thread is inside a long call: the second signal ends the process at once, and so does the first
one if it is not polled for `GRACE_S` seconds. In a training, whose step would be lost, the limit is `STEP_S` seconds or
twice the longest step so far, whichever is longer. Files written aside and renamed stay whole, as after a kill -9.
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
SAME_S = 0.5  # torchrun forwards a Ctrl-C that the terminal has already sent to every process
ASK_S = 0.2  # between two polls: of a child, or for a due signal
DONE = b"\0"  # ends the watcher; no signal's number
SHOW_CURSOR = b"\x1b[?25h"


class Interrupted(BaseException):
    """The process was asked to stop. Not an `Exception`, so that no error handler catches it."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.signal = number


class Interrupt:
    """Whether a signal to stop has arrived.

    Attributes:
        signal: its number; None before one has arrived.
        came: when it arrived, by the monotonic clock.
        since: `came`, or the end of the last body of `interruptible`.
        holds: running bodies of `interruptible`, which poll `number`; `check` raises nothing meanwhile.
        asked: the last poll of `number`, or the start of the first such body.
        longest: seconds between two such polls, at most, so far.
        answered: whether such a body has polled since the signal arrived.
        before: the former signal handlers.
    """

    def __init__(self, holds: int = 0) -> None:
        self.signal: int | None = None
        self.came = self.since = self.longest = 0.0
        self.asked = time.monotonic()
        self.holds, self.answered = holds, False
        self.before: Mapping[int, Any] = {number: signal.getsignal(number) for number in SIGNALS}

    @property
    def number(self) -> int | None:
        """The signal's number, None before one has arrived; polled by code that saves before it stops."""
        now = time.monotonic()
        self.longest, self.asked = max(self.longest, now - self.asked), now
        self.answered = self.signal is not None
        return self.signal

    def is_overdue(self) -> bool:
        """Whether a signal has arrived and has not been polled for longer than the process may take to end."""
        if self.signal is None or (self.holds and self.answered):
            return False
        most = max(STEP_S, 2 * self.longest) if self.holds else GRACE_S
        return time.monotonic() - self.since > most

    def note(self, number: int, frame: FrameType | None = None) -> None:
        """Record a signal; only the first one counts."""
        if self.signal is None:
            self.came = self.since = time.monotonic()
            self.signal = number

    def restore(self) -> None:
        """Restore the former signal handlers."""
        for number, handler in self.before.items():
            signal.signal(number, handler)


_current: Interrupt | None = None


def check() -> None:
    """Stop here if asked to, unless a training is at work, which stops by itself.

    Raises:
        Interrupted: with the signal's number.
    """
    if _current is not None and _current.signal is not None and not _current.holds:
        raise Interrupted(_current.signal)


@contextlib.contextmanager
def interruptible() -> Iterator[Interrupt]:
    """Turn SIGINT and SIGTERM into the flag `number`, which the body polls; `check` raises nothing meanwhile.

    Within `whole_process` the flag is the process's. Elsewhere the second signal has its former effect. Outside
    the main thread signals cannot be caught, and the flag is never set.
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
    """Let `check` stop the body; a second signal, or one that is not polled, ends the process.

    Raises:
        Interrupted: from `check`, also at the end of the body if a signal has not been polled.
    """
    global _current
    if _current is not None or threading.current_thread() is not threading.main_thread():
        yield
        return
    flag = Interrupt()
    for number in SIGNALS:  # first, since until then Python's own handler raises KeyboardInterrupt
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
        os.write(writing, DONE)  # closing the pipe would not end the watcher: forked children may hold it open
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
    """End the process now; no partial file has a final name."""
    with contextlib.suppress(OSError):
        os.write(2, (SHOW_CURSOR if os.isatty(2) else b"") + b"prunus: stopped at once; nothing was saved since\n")
    os._exit(128 + number)


def _forget() -> None:
    """Restore the former signal handlers in a forked child."""
    global _current
    flag, _current = _current, None
    if flag is not None:
        with contextlib.suppress(ValueError):  # forked by a thread other than the main one
            signal.set_wakeup_fd(-1)
            flag.restore()


os.register_at_fork(after_in_child=_forget)


@contextlib.contextmanager
def delayed() -> Iterator[None]:
    """Delay signals: a child forked meanwhile gets them once it has its own handlers."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def output_of(
    command: list[str], *, timeout_s: float | None = None, **settings: Any
) -> subprocess.CompletedProcess[str]:
    """Run `command` to its end and return its output; if asked to stop, kill it first.

    Raises:
        subprocess.TimeoutExpired: it took longer than `timeout_s` seconds, and was killed.
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
