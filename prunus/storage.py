"""Folders that are complete or absent: written aside, flushed to disk, then renamed.

    with storage.whole_folder(path) as aside:
        (aside / "manifest.json").write_text(...)

A reader sees the old folder or the new one, never a mixture or a part, even if the process or the
machine dies. Only one process may write to a folder at a time. A failure raises `OSError`; the caller interprets it.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from prunus.decoding import MIB, Limits, from_json

SEAL = "sha256"
MANIFEST = Limits(size=4 * MIB)


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield a new, empty folder beside `path`; at the end it replaces `path`, which may exist.

    If the body raises, `path` is unchanged and no partial folder remains.
    """
    aside, replaced = _aside(path), _replaced(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() and replaced.exists():  # a writer died between the two renames below
        replaced.rename(path)
    for old in (aside, replaced):
        if old.exists():
            shutil.rmtree(old)
    aside.mkdir()
    try:
        yield aside
        for file in aside.iterdir():
            flush(file)
        flush(aside)
        if path.exists():  # a folder cannot be renamed onto a non-empty one: move that aside
            path.rename(replaced)
        aside.rename(path)
        flush(path.parent)
    except BaseException:
        if not path.exists() and replaced.exists():
            replaced.rename(path)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    shutil.rmtree(replaced, ignore_errors=True)


def remove_whole(path: Path) -> None:
    """Remove a folder; rename it first, so that no reader sees it with only some of its files."""
    shutil.rmtree(path.rename(_aside(path)))


def remove_abandoned(folder: Path) -> None:
    """Remove the folders that a dead process has left half-written or half-removed in `folder`."""
    for path in folder.glob(_aside(folder / "*").name):
        shutil.rmtree(path)


def current(path: Path) -> Path:
    """Return the path of the contents of `path`: there, or aside if its replacement was interrupted."""
    replaced = _replaced(path)
    return replaced if not path.exists() and replaced.exists() else path


def flush(path: Path) -> None:
    """Flush a file, or a folder's own entries, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a regular file, in hexadecimal.

    Raises:
        OSError: it cannot be read, or is not a regular file and so may never end.
    """
    if not path.is_file():
        raise FileNotFoundError(errno.ENOENT, "no such regular file", str(path))
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sealed(content: Mapping[str, Any]) -> str:
    """Return `content` as JSON with the SHA-256 of the rest as "sha256", so that later changes are detected."""
    return json.dumps({**content, SEAL: _digest(content)}, indent=1)


def unsealed(text: str) -> dict[str, Any]:
    """Return what `sealed` was given; accept text without a seal, as earlier versions wrote it.

    Raises:
        ValueError: it is not a JSON object, or has been changed.
    """
    content = from_json(text, MANIFEST)
    if not isinstance(content, dict):
        raise ValueError("it is not a JSON object")
    seal = content.pop(SEAL, None)
    if seal is not None and seal != _digest(content):
        raise ValueError("it is not what was written (SHA-256)")
    return content


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.writing")


def _replaced(path: Path) -> Path:
    return path.with_name(f".{path.name}.replaced")


def storable(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return `tensors` on the CPU, contiguous, and each in its own storage, as safetensors requires."""
    result, storages = {}, set()
    for name, tensor in tensors.items():
        stored = tensor.detach().to("cpu").contiguous()
        storage = stored.untyped_storage()
        if storage.data_ptr() in storages or storage.nbytes() != stored.nbytes:
            stored = stored.clone()
        storages.add(stored.untyped_storage().data_ptr())
        result[name] = stored
    return result
