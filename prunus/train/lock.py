"""The lock of a run folder: one run per folder; released when its process ends, in any way."""

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from prunus.errors import CheckpointError, FolderInUseError

FILE_NAME = ".lock"
_held: set[tuple[int, int]] = set()  # (device, inode): the system's lock does not exclude the same process


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold `folder` for this process, so that no second run writes to it.

    The lock is a POSIX record lock on `folder/.lock`: the system frees it when the process ends, even by kill -9, and
    forked data workers that outlive the process for some seconds do not keep it. The file itself stays.

    Raises:
        FolderInUseError: another run holds the folder (names its process number).
        CheckpointError: the folder is not writable.
    """
    path = Path(folder) / FILE_NAME
    # Check before opening the file: closing any descriptor of it would free the lock that this process holds.
    if path.exists() and _identity(path.lstat()) in _held:
        raise FolderInUseError(_taken(folder, str(os.getpid())))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
    except OSError as error:
        raise CheckpointError(f"folder {folder} is not writable: {error.strerror}; choose another") from error
    key = _identity(os.fstat(descriptor))
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise CheckpointError(
                f"{path} is not a regular file, so {folder} cannot be locked: remove it, or choose another"
            )
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
            raise FolderInUseError(_taken(folder, holder)) from error
        except OSError as error:
            raise CheckpointError(f"folder {folder} cannot be locked: {error.strerror}; choose another") from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        _held.add(key)
        yield
    finally:
        _held.discard(key)
        os.close(descriptor)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _taken(folder: Path, holder: str) -> str:
    return (
        f"folder {folder} is in use by another run (process {holder}): wait until that run ends, stop it, or "
        "choose another folder"
    )
