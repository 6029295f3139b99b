"""Checkpoints that are whole or not there: safetensors and JSON, each with its SHA-256, never pickle.

A checkpoint is a folder `000007-step-1200` (the seventh written, after 1200 steps) that holds

    tensors.safetensors   the tensors
    state.json            everything else
    manifest.json         format version, step, size and SHA-256 of the two

It is written aside (`.writing-...` in the same folder), flushed to the disk, files and folders, and only then
renamed. So a reader sees all of it or nothing, whenever the process or the machine dies. The number written
first orders them, not the step, since a run that went back after damage writes lower steps again. One process
writes to a folder at a time: hold `prunus.train.lock.lock`.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from prunus.errors import CheckpointError

FORMAT_VERSION = 1
TENSORS, STATE, MANIFEST = "tensors.safetensors", "state.json", "manifest.json"
WRITING = ".writing-"
NAME = re.compile(r"(\d{6,})-step-(\d+)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What was read. `notes` say which newer checkpoints were damaged and passed over."""

    path: Path
    step: int
    tensors: dict[str, Tensor]
    state: dict[str, Any]
    best: bool
    notes: tuple[str, ...] = ()


class DamagedError(CheckpointError):
    """The files are not those that were written."""


def write(
    folder: Path,
    *,
    step: int,
    tensors: Mapping[str, Tensor],
    state: Mapping[str, Any],
    keep: int = 2,
    best: bool = False,
) -> Path:
    """Write a checkpoint and return its folder; then drop all but the last `keep` and the last `best` one.

    Args:
        folder: holds the checkpoints of one run; made where it does not exist.
        step: training steps done, or epochs; the caller's unit.
        tensors: from any device; shared or strided ones are stored one by one, contiguously.
        state: whatever JSON holds; `prunus.train.tree.flatten` brings an optimizer into this form.
        keep: how many of the last to keep, at least 1.
        best: whether this is the best so far, to be kept until a better one is written.

    Raises:
        CheckpointError: a folder that is not writable, a full disk, a state that JSON cannot hold. What was
            there before is untouched and nothing half-written is left.
    """
    if keep < 1:
        raise CheckpointError(f"keep must be at least 1, not {keep}: a run could not be resumed otherwise")
    folder = Path(folder)
    existing = _numbered(folder)
    number = existing[-1][0] + 1 if existing else 1
    path = folder / f"{number:06d}-step-{step}"
    aside = folder / f"{WRITING}{path.name}"
    contents = _serialised(step, tensors, state, best)
    with _nothing_half_written(aside, step):
        _remove_abandoned(folder)
        aside.mkdir(parents=True)
        _write_files(aside, contents)
        aside.rename(path)
        _flush(folder)
    _drop_old(folder, keep)
    return path


@contextlib.contextmanager
def _nothing_half_written(aside: Path, step: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CheckpointError(
            f"the checkpoint of step {step} cannot be written to {aside.parent}: {error.strerror}; "
            "earlier ones there are untouched: make room or choose a folder that is writable, then start the "
            "same command again"
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _serialised(step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any], best: bool) -> dict[str, bytes]:
    """The files by name. As bytes, not by save_file, so that writing, flushing and a full disk are ours."""
    try:
        contents = {
            TENSORS: safetensors.torch.save(_storable(tensors)),
            STATE: json.dumps(dict(state)).encode(),
        }
    except (SafetensorError, TypeError, ValueError, KeyError, AttributeError) as error:
        raise CheckpointError(f"the checkpoint of step {step} holds what cannot be stored: {error}") from error
    files = {
        name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in contents.items()
    }
    manifest = {"format": FORMAT_VERSION, "step": step, "best": best, "files": files}
    return {**contents, MANIFEST: json.dumps(manifest, indent=1).encode()}


def _write_files(aside: Path, contents: Mapping[str, bytes]) -> None:
    for name, content in contents.items():
        with (aside / name).open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    _flush(aside)


def _storable(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """On the CPU, contiguous, and no two in one storage, as safetensors wants them."""
    result, storages = {}, set()
    for name, tensor in tensors.items():
        stored = tensor.detach().to("cpu").contiguous()
        storage = stored.untyped_storage()
        if storage.data_ptr() in storages or storage.nbytes() != stored.nbytes:
            stored = stored.clone()
        storages.add(stored.untyped_storage().data_ptr())
        result[name] = stored
    return result


def _flush(folder: Path) -> None:
    """Bring the folder's own entries, such as a rename, to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _numbered(folder: Path) -> list[tuple[int, Path]]:
    """The checkpoints in `folder`, damaged ones included, in the order in which they were written."""
    try:
        paths = list(folder.iterdir()) if folder.exists() else []
    except OSError as error:
        raise CheckpointError(f"folder {folder} cannot be listed: {error.strerror}") from error
    matches = [(NAME.fullmatch(path.name), path) for path in paths]
    return sorted((int(match[1]), path) for match, path in matches if match)


def _remove_abandoned(folder: Path) -> None:
    """Remove what a killed process left half-written."""
    for path in folder.glob(f"{WRITING}*"):
        shutil.rmtree(path)


def _drop_old(folder: Path, keep: int) -> None:
    paths = [path for _, path in _numbered(folder)]
    best = [path for path in paths if _is_best(path)][-1:]
    for path in paths[:-keep]:
        if path not in best:
            # Renamed first: a checkpoint is never seen with half of its files. What fails to go may stay.
            with contextlib.suppress(OSError):
                shutil.rmtree(path.rename(folder / f"{WRITING}{path.name}"))


def _is_best(path: Path) -> bool:
    try:
        return bool(_manifest(path)["best"])
    except DamagedError:
        return False


def latest(folder: Path) -> Checkpoint | None:
    """Return the newest whole checkpoint in `folder`, None where there are none at all.

    Raises:
        CheckpointError: there are checkpoints but each is damaged, or a newer Prunus wrote them.
    """
    return _newest(Path(folder), [path for _, path in _numbered(Path(folder))])


def best(folder: Path) -> Checkpoint | None:
    """Return the newest whole checkpoint that was written as the best one, None where there is none.

    Raises:
        CheckpointError: as `latest`.
    """
    return _newest(Path(folder), [path for _, path in _numbered(Path(folder)) if _is_best(path)])


def _newest(folder: Path, paths: list[Path]) -> Checkpoint | None:
    notes: list[str] = []
    for path in reversed(paths):
        try:
            return dataclasses.replace(read(path), notes=tuple(notes))
        except DamagedError as error:
            notes.append(f"{error}; the one before it is taken")
    if notes:
        raise CheckpointError(
            f"none of the {len(notes)} checkpoints in {folder} is whole: {' '.join(notes)} To start from the "
            "beginning, remove the folder or choose another"
        )
    return None


def read(path: Path) -> Checkpoint:
    """Return the checkpoint in the folder `path`, after comparing each file with the manifest.

    Raises:
        CheckpointError: a file that is missing, cut short or changed; a format that this version cannot read.
    """
    path = Path(path)
    manifest = _manifest(path)
    for name, written in manifest["files"].items():
        _verify(path / name, written)
    try:
        tensors = safetensors.torch.load_file(path / TENSORS)
        state = json.loads((path / STATE).read_text(encoding="utf-8"))
    except (OSError, SafetensorError, ValueError) as error:
        raise DamagedError(f"checkpoint {path} is damaged: {error}") from error
    return Checkpoint(path=path, step=manifest["step"], tensors=tensors, state=state, best=manifest["best"])


def _manifest(path: Path) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        version, files, _, _ = (manifest[key] for key in ("format", "files", "step", "best"))
        if version == FORMAT_VERSION and set(files) != {TENSORS, STATE}:
            raise ValueError(f"it lists {sorted(files)}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"checkpoint {path} is damaged: its {MANIFEST} is unusable: {error}") from error
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"checkpoint {path} has format {version} and this Prunus reads format {FORMAT_VERSION}: use the "
            "version of Prunus that wrote it"
        )
    return manifest


def _verify(path: Path, written: Mapping[str, Any]) -> None:
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
    except OSError as error:
        raise _damaged(path, f"cannot be read: {error.strerror}") from error
    if size != written["bytes"]:
        raise _damaged(path, f"has {size} bytes and {written['bytes']} were written")
    if digest != written["sha256"]:
        raise _damaged(path, "is not what was written (SHA-256)")


def _damaged(file: Path, reason: str) -> DamagedError:
    return DamagedError(f"checkpoint {file.parent} is damaged: {file.name} {reason}")
