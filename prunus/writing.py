"""Files that are complete or unchanged: written aside, flushed to disk, then renamed; no symbolic link is followed.

A run's folder may come from somebody else: a link there, under the name of a file to be written, would lead the
writer to any of the user's files.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from prunus.errors import DeployError

NEW_S = 60.0  # a younger folder may not have been locked by its process yet


def write_whole(path: Path, content: bytes) -> None:
    """Replace `path`, which may be a file, a link, or absent, by a file with `content`.

    Raises:
        DeployError: it is a folder, pipe or device.
        OSError: it cannot be written; `path` is unchanged, and no partial file remains.
    """
    check_replaceable(path)
    aside = path.with_name(f".{path.name}.{os.getpid()}.writing")
    aside.unlink(missing_ok=True)
    try:
        with os.fdopen(os.open(aside, _own(os.O_WRONLY | os.O_EXCL | os.O_CREAT), 0o666), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def check_replaceable(path: Path) -> None:
    """Check that `path` is a file or absent: a pipe or device that a file replaces is gone.

    Raises:
        DeployError: it is a folder, pipe or device, or a link to one.
    """
    if path.exists() and not path.is_file():
        raise DeployError(f"{path} is not a regular file and is not replaced: give another path")


def append(path: Path, content: bytes) -> None:
    """Append `content` to a regular file, created if missing; it is on disk when the function returns.

    Raises:
        OSError: the file cannot be written, or is a link.
    """
    with os.fdopen(os.open(path, _own(os.O_WRONLY | os.O_APPEND | os.O_CREAT), 0o666), "ab") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def folder_aside(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside `path` that is removed at the end; first remove those of killed processes.

    A folder in use is locked, and the system frees the lock when its process ends, in whatever way.

    Raises:
        OSError: the folder cannot be created.
    """
    prefix, suffix = f".{path.name}.", ".writing"
    for old in path.parent.iterdir():
        if old.name.startswith(prefix) and old.name.endswith(suffix):
            with contextlib.suppress(OSError), _locked(old):
                if time.time() - old.lstat().st_mtime > NEW_S:
                    shutil.rmtree(old)
    with (
        tempfile.TemporaryDirectory(prefix=prefix, suffix=suffix, dir=path.parent) as folder,
        contextlib.ExitStack() as stack,
    ):
        with contextlib.suppress(OSError):  # for a file system without locks
            stack.enter_context(_locked(Path(folder), wait=True))  # another process may be checking its age
        yield Path(folder)


@contextlib.contextmanager
def _locked(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock of a folder; raise `OSError` if it is no folder, or, unless `wait`, if another process holds it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def remove_abandoned(folder: Path) -> None:
    """Remove the files that a dead process has left half-written in `folder`."""
    for path in folder.glob(".*.writing"):
        if path.is_symlink() or not path.is_dir():
            path.unlink(missing_ok=True)


def _own(flags: int) -> int:
    """Return flags for a file that is no link, and that no child process inherits."""
    return flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
