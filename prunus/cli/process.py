"""What the command line sets for its process before anything large is imported."""

import io
import os
import sys
from collections.abc import Iterator

SPINS = "5000"  # of torch's OpenMP threads at a barrier, about an eighth of a millisecond
WAITING = {
    # GNU's OpenMP, which torch's wheels bring for Linux: it spins for minutes where there are as many cores as threads.
    "GOMP_SPINCOUNT": SPINS,
    # LLVM's and Intel's, in builds with MKL or for other systems: it spins for 200 ms.
    "KMP_BLOCKTIME": "1",
}
SET_BY_USER = (*WAITING, "OMP_WAIT_POLICY")


def prepare() -> None:
    """Let threads wait without taking another process's time, and let text be printed on any terminal."""
    wait_politely()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace" if stream is sys.stderr else "replace")


def wait_politely() -> None:
    """Bound how long the threads of OpenMP spin at a barrier, where the user has set nothing and torch is not loaded.

    A thread that spins while its core is wanted by another process keeps the whole team waiting: beside one busy
    process on the same cores a step of training takes three to sixty times as long (`benchmarks/busy_machine.py`).
    Processes that this one starts inherit the setting. OpenMP reads it once, when torch is loaded.
    """
    if "torch" not in sys.modules and not any(name in os.environ for name in SET_BY_USER):
        os.environ.update(WAITING)


def leave_out_current_folder() -> None:
    """Take out of the import path what `python -m` puts first there: the current folder, whatever lies in it."""
    if sys.path and not sys.flags.safe_path and sys.path[0] in set(_current_folder()):
        del sys.path[0]


def import_from_current_folder() -> None:
    """Let a recipe's and the user's own modules be found where they stand, behind all that is installed."""
    for folder in _current_folder():
        if folder and folder not in sys.path:
            sys.path.append(folder)


def has_current_folder() -> bool:
    """Whether the current folder is still there."""
    return len(list(_current_folder())) > 1


def _current_folder() -> Iterator[str]:
    yield ""
    try:
        yield os.getcwd()  # noqa: PTH109 - pathlib is not imported yet
    except FileNotFoundError:  # removed: nothing can be imported from it
        return
