"""The command line.

Exit codes: 0 done; 1 refused or failed, with the reason on stderr; 2 the command line itself is wrong;
130 and 143 interrupted by Ctrl-C or SIGTERM after a checkpoint.
"""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

from prunus.cli import commands
from prunus.cli.commands import find_recipe
from prunus.cli.parser import parser
from prunus.errors import PrunusError
from prunus.train.interrupt import InterruptedTrainingError

__all__ = ["find_recipe", "main", "parser"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    errors = commands.terminal(stderr=True)
    known = parser()
    options, rest = known.parse_known_args(arguments)
    if rest and options.command is commands.run and not any(item.startswith("-") for item in rest):
        options.overrides += rest  # argparse takes no more of them behind an option
    elif rest:
        known.error(f"unrecognized arguments: {' '.join(rest)}")
    if str(Path.cwd()) not in sys.path:  # a user's own module:callable lies where they stand
        sys.path.insert(0, str(Path.cwd()))
    try:
        with _terminable():
            options.command(options)
    except InterruptedTrainingError as error:
        errors.print(f"prunus: {error}", soft_wrap=True)
        return 128 + error.signal
    except (PrunusError, OSError) as error:
        errors.print(f"prunus: {type(error).__name__}:", style="bold red", end=" ")
        errors.print(str(error), soft_wrap=True)
        return 1
    except (KeyboardInterrupt, _Terminated) as error:
        again = "; the same command goes on from the last checkpoint" if options.command is commands.run else ""
        errors.print(f"prunus: interrupted{again}", soft_wrap=True)
        return 130 if isinstance(error, KeyboardInterrupt) else 143
    return 0


class _Terminated(BaseException):
    """SIGTERM, where no training waits for it."""


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Turn SIGTERM into an exception, so that what is open is closed; the training loop has its own way."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise _Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
