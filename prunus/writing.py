"""Files that are whole or as they were: written aside, flushed to the disk, then renamed; no symbolic link is followed.

A run's folder may have come from somebody else: a link that lies there under a name that is written to would lead the
writer to any file of the user's.
"""

import os
from pathlib import Path


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


def remove_abandoned(folder: Path) -> None:
    """Remove the files that a process which died has left half-written in `folder`."""
    for path in folder.glob(".*.writing"):
        if path.is_symlink() or not path.is_dir():
            path.unlink(missing_ok=True)


def _own(flags: int) -> int:
    """Return flags of a file that is no link, and that no child process gets."""
    return flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
