"""The command line.

Exit codes: 0 done; 1 refused or failed, with the reason on stderr; 2 the command line itself is wrong; 130 and 143
interrupted by Ctrl-C or SIGTERM, a training after a checkpoint.

Only the standard library is imported before `main` has prepared the process, so that modules in the current folder
cannot shadow installed ones.
"""

import argparse
import errno
import signal
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from prunus import interrupt
from prunus.cli import process
from prunus.errors import InterruptedTrainingError, PrunusError

if TYPE_CHECKING:
    from prunus.cli.arguments import parser
    from prunus.cli.commands import find_recipe

__all__ = ["find_recipe", "main", "parser"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    running = False
    try:
        with interrupt.whole_process():
            process.prepare()
            options = _options(arguments)
            running = options.command.__name__ in ("run", "shrink", "sweep")
            options.command(options)
    except (PrunusError, OSError, MemoryError) as error:
        return _failed(error)
    except KeyboardInterrupt:  # before `whole_process` begins, or after it ends
        return _stopped("interrupted", signal.SIGINT)
    except interrupt.Interrupted as error:
        again = "; the same command resumes from the last checkpoint" if running else ""
        return _stopped(f"interrupted{again}", error.signal)
    return 0


def _failed(error: PrunusError | OSError | MemoryError) -> int:
    from prunus.terminal import Terminal

    if isinstance(error, InterruptedTrainingError):
        return _stopped(str(error), error.signal)
    errors = Terminal(stderr=True)
    errors.print(f"prunus: {type(error).__name__}:", style="bold red", end=" ")
    errors.print(_text(error), soft_wrap=True)
    return 1


def _stopped(text: str, number: int) -> int:
    from prunus.terminal import Terminal

    Terminal(stderr=True).print(f"prunus: {text}", soft_wrap=True)
    return 128 + number


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the parsed arguments; if they are wrong, the parser ends the process with 2."""
    from prunus.cli.arguments import parser

    known = parser()
    options, rest = known.parse_known_args(arguments)
    if rest and "overrides" in options and not any(item.startswith("-") for item in rest):
        options.overrides += rest  # argparse accepts no further positional arguments after an option
    elif rest:
        name = options.command.__name__
        known.error(f"unrecognized arguments: {' '.join(rest)}; `prunus {name} --help` lists the arguments of {name}")
    return options


def _text(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return f"out of memory ({error or 'no details'}): take smaller batches or images"
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"{error}: make room, then start the same command again"
    if not process.has_current_folder():
        return f"{error} (the current folder has been removed: change to another one and start the same command again)"
    return str(error)


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'prunus.cli' has no attribute {name!r}")
    from prunus.cli import arguments, commands

    return {"find_recipe": commands.find_recipe, "parser": arguments.parser}[name]
