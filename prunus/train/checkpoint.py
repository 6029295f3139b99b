"""Atomic checkpoints: safetensors and JSON with their SHA-256, no pickle.

A checkpoint is a folder `000007-step-1200` (the seventh written, after 1200 steps) that holds

    tensors.safetensors   the tensors
    state.json            everything else
    manifest.json         format version, step, size and SHA-256 of both files, and of itself

It is written by `prunus.storage`: to a temporary folder, flushed to disk, then renamed. A reader sees a complete
checkpoint or none, even if the process or the machine dies. The leading number, not the step, orders checkpoints,
because a run that resumes from an older checkpoint writes lower steps again. Only one process may write to a
folder at a time: hold `prunus.train.lock.lock`.
"""

import contextlib
import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from prunus import storage
from prunus.decoding import from_json, read_text
from prunus.errors import CheckpointError

FORMAT_VERSION = 2
READABLE = (1, 2)  # 1 holds the random state of one process
TENSORS, STATE, MANIFEST = "tensors.safetensors", "state.json", "manifest.json"
NAME = re.compile(r"(\d{6,})-step-(\d+)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint as read. `notes` name newer checkpoints that were skipped because they are damaged."""

    path: Path
    step: int
    tensors: dict[str, Tensor]
    state: dict[str, Any]
    best: bool
    notes: tuple[str, ...] = ()


class DamagedError(CheckpointError):
    """The files differ from those written."""


def write(
    folder: Path,
    *,
    step: int,
    tensors: Mapping[str, Tensor],
    state: Mapping[str, Any],
    keep: int = 2,
    best: bool = False,
) -> Path:
    """Write a checkpoint and return its folder; then delete all but the last `keep` and the last `best` one.

    Args:
        folder: holds the checkpoints of one run; created if missing.
        step: number of training steps, or of epochs, as the caller counts.
        tensors: on any device; those that share memory are stored separately, strided ones contiguously.
        state: plain data for JSON; `prunus.train.tree.flatten` converts an optimizer's state.
        keep: number of most recent checkpoints to keep, at least 1.
        best: whether this checkpoint is the best so far; it is kept until a better one is written.

    Raises:
        CheckpointError: the folder is not writable, the disk is full, or `state` is not plain data. Existing
            checkpoints are unchanged, and no partial one remains.
    """
    if keep < 1:
        raise CheckpointError(f"keep must be at least 1, not {keep}: a run could not be resumed otherwise")
    folder = Path(folder)
    existing = _numbered(folder)
    number = existing[-1][0] + 1 if existing else 1
    path = folder / f"{number:06d}-step-{step}"
    try:
        stored, text = storage.storable(tensors), json.dumps(dict(state))
    except (TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"the checkpoint of step {step} holds a value that cannot be stored: {error}") from error
    try:
        storage.remove_abandoned(folder)
        with storage.whole_folder(path) as aside:
            safetensors.torch.save_file(stored, aside / TENSORS)  # unlike `save`, it lets other threads run
            (aside / STATE).write_text(text, encoding="utf-8")
            files = {name: _described(aside / name) for name in (TENSORS, STATE)}
            manifest = {"format": FORMAT_VERSION, "step": step, "best": best, "files": files}
            (aside / MANIFEST).write_text(storage.sealed(manifest), encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"the checkpoint of step {step} cannot be written to {folder}: {getattr(error, 'strerror', error)}; "
            "earlier ones there are untouched: make room or choose a folder that is writable, then start the same "
            "command again"
        ) from error
    _drop_old(folder, keep)
    return path


def _described(file: Path) -> dict[str, Any]:
    return {"bytes": file.stat().st_size, "sha256": storage.sha256(file)}


def _numbered(folder: Path) -> list[tuple[int, Path]]:
    """Return (number, path) of the checkpoints in `folder`, damaged ones included, oldest first."""
    try:
        paths = list(folder.iterdir()) if folder.exists() else []
    except OSError as error:
        raise CheckpointError(f"folder {folder} cannot be listed: {error.strerror}") from error
    matches = [(NAME.fullmatch(path.name), path) for path in paths]
    return sorted((int(match[1]), path) for match, path in matches if match)


def _drop_old(folder: Path, keep: int) -> None:
    paths = [path for _, path in _numbered(folder)]
    best = [path for path in paths if _is_best(path)][-1:]
    for path in paths[:-keep]:
        if path not in best:
            with contextlib.suppress(OSError):  # an old checkpoint that stays does no harm
                storage.remove_whole(path)


def _is_best(path: Path) -> bool:
    try:
        return bool(_manifest(path)["best"])
    except DamagedError:
        return False


def latest(folder: Path) -> Checkpoint | None:
    """Return the newest intact checkpoint in `folder`; None if there is no checkpoint.

    Raises:
        CheckpointError: all checkpoints are damaged, or one was written by a newer version.
    """
    return _newest(Path(folder), [path for _, path in _numbered(Path(folder))])


def best(folder: Path) -> Checkpoint | None:
    """Return the newest intact checkpoint that was written with `best`, or None.

    Raises:
        CheckpointError: as `latest`.
    """
    return _newest(Path(folder), [path for _, path in _numbered(Path(folder)) if _is_best(path)])


def _newest(folder: Path, paths: list[Path]) -> Checkpoint | None:
    damages: list[str] = []
    for path in reversed(paths):
        try:
            found = read(path)
        except DamagedError as error:
            damages.append(str(error))
        else:
            return dataclasses.replace(found, notes=tuple(f"{damage}; {path.name} is taken" for damage in damages))
    if damages:
        raise CheckpointError(
            f"none of the {len(damages)} checkpoints in {folder} is whole: {'; '.join(damages)}. To start from the "
            "beginning, remove the folder or choose another"
        )
    return None


def read(path: Path) -> Checkpoint:
    """Return the checkpoint in the folder `path`, after comparing its files with the manifest.

    Raises:
        CheckpointError: a file is missing, truncated or changed, or this version cannot read the format.
    """
    path = Path(path)
    manifest = _manifest(path)
    for name, written in manifest["files"].items():
        _verify(path / name, written)
    try:
        tensors = safetensors.torch.load_file(path / TENSORS)
        state = from_json(read_text(path / STATE))
    except (OSError, SafetensorError, ValueError) as error:
        raise DamagedError(f"checkpoint {path} is damaged: {error}") from error
    return Checkpoint(path=path, step=manifest["step"], tensors=tensors, state=state, best=manifest["best"])


def _manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = storage.unsealed(read_text(path / MANIFEST))
        version, files, _, _ = (manifest[key] for key in ("format", "files", "step", "best"))
        if version in READABLE:
            described = {name: (files[name]["bytes"], files[name]["sha256"]) for name in (TENSORS, STATE)}
            if files.keys() != described.keys():
                raise ValueError(f"it lists {sorted(files)}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"checkpoint {path} is damaged: its {MANIFEST} is unusable: {error}") from error
    if version not in READABLE:
        raise CheckpointError(
            f"checkpoint {path} has format {version} and this Prunus reads formats up to {FORMAT_VERSION}: use the "
            "version of Prunus that wrote it"
        )
    return manifest


def _verify(path: Path, written: Mapping[str, Any]) -> None:
    try:
        found = _described(path)
    except OSError as error:
        raise _damaged(path, f"cannot be read: {error.strerror}") from error
    if found["bytes"] != written["bytes"]:
        raise _damaged(path, f"has {found['bytes']} bytes and {written['bytes']} were written")
    if found["sha256"] != written["sha256"]:
        raise _damaged(path, "is not what was written (SHA-256)")


def _damaged(file: Path, reason: str) -> DamagedError:
    return DamagedError(f"checkpoint {file.parent} is damaged: {file.name} {reason}")
