"""Files that are whole or as they were: written aside, flushed to the disk, then renamed; no symbolic link is followed.

A run's folder may have come from somebody else: a link that lies there under a name that is written to would lead the
writer to any file of the user's.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

NEW_S = 60.0  # a folder may be so young that its process has not locked it yet


def write_whole(path: Path, content: bytes) -> None:
    """Put a file with `content` in the place of `path`, which may be one, or a link, or not be there.

    Raises:
        OSError: it cannot be written; `path` is as it was, and nothing half-written is left.
    """
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


def append(path: Path, content: bytes) -> None:
    """Append `content` to a regular file, made where it does not exist; it is on the disk at the end.

    Raises:
        OSError: it cannot be written, or is a link.
    """
    with os.fdopen(os.open(path, _own(os.O_WRONLY | os.O_APPEND | os.O_CREAT), 0o666), "ab") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def folder_aside(path: Path) -> Iterator[Path]:
    """Hand out an empty folder beside `path` that is gone at the end; those that killed processes left go first.

    A folder in use is locked, and the system frees the lock when its process ends, however that is.

    Raises:
        OSError: it cannot be made.
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
        with contextlib.suppress(OSError):  # a file system without locks
            stack.enter_context(_locked(Path(folder), wait=True))  # another may be looking how old it is
        yield Path(folder)


@contextlib.contextmanager
def _locked(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock of a folder; raise `OSError` where another process does and none waits, or it is no folder."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def remove_abandoned(folder: Path) -> None:
    """Remove the files that a process which died has left half-written in `folder`."""
    for path in folder.glob(".*.writing"):
        if path.is_symlink() or not path.is_dir():
            path.unlink(missing_ok=True)


def _own(flags: int) -> int:
    """Return flags of a file that is no link, and that no child process gets."""
    return flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
