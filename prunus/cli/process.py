"""Settings of the command line's process, made before anything large is imported."""

import io
import os
import sys
from collections.abc import Iterator

SPINS = "5000"  # of torch's OpenMP threads at a barrier, about an eighth of a millisecond
WAITING = {
    # GNU OpenMP, part of torch's wheels for Linux: spins for minutes if there are as many cores as threads.
    "GOMP_SPINCOUNT": SPINS,
    # LLVM's and Intel's OpenMP, in builds with MKL or for other systems: spins for 200 ms.
    "KMP_BLOCKTIME": "1",
}
SET_BY_USER = (*WAITING, "OMP_WAIT_POLICY")


def prepare() -> None:
    """Limit the spinning of threads, and let text be printed on any terminal."""
    wait_politely()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace" if stream is sys.stderr else "replace")


def wait_politely() -> None:
    """Limit how long OpenMP's threads spin at a barrier, unless the user has set this or torch is already loaded.

    A thread that spins on a core that another process needs delays the whole team: beside one busy process on the same
    cores a training step takes three to sixty times as long (`benchmarks/busy_machine.py`). Child processes inherit the
    setting. OpenMP reads it once, when torch is loaded.
    """
    if "torch" not in sys.modules and not any(name in os.environ for name in SET_BY_USER):
        os.environ.update(WAITING)


def leave_out_current_folder() -> None:
    """Remove the current folder from the import path, where `python -m` puts it first."""
    if sys.path and not sys.flags.safe_path and sys.path[0] in set(_current_folder()):
        del sys.path[0]


def import_from_current_folder() -> None:
    """Append the current folder to the import path, so that the user's modules are found after installed ones."""
    for folder in _current_folder():
        if folder and folder not in sys.path:
            sys.path.append(folder)


def has_current_folder() -> bool:
    """Whether the current folder still exists."""
    return len(list(_current_folder())) > 1


def _current_folder() -> Iterator[str]:
    yield ""
    try:
        yield os.getcwd()  # noqa: PTH109 - pathlib is not imported yet
    except FileNotFoundError:  # removed: nothing can be imported from it
        return
