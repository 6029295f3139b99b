"""Export a network, and say clearly why one cannot be."""

import contextlib
import io
import logging
import traceback
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prunus.errors import TraceError
from prunus.modules.kinds import BatchNorm
from prunus.modules.modes import modes_kept

MOST_SAID = 300  # characters of what torch says
FOREIGN = (Path(torch.__file__).parent, Path(__file__).parents[1], Path(traceback.__file__).parent)


def export(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None, *, training: bool) -> Any:
    """Export `model` in evaluation or training mode; its modes are put back.

    Without gradients the same graph comes a third faster; the one layer that would then take a path of its own
    (fused attention in torch's transformer layers) is told not to.
    """
    with in_mode(model, training=training), attributes_kept(model), torch.no_grad(), plain_attention(), _quiet():
        try:
            return torch.export.export(model, args, dict(kwargs or {}))
        except Exception as error:  # torch.export raises whatever the model's own code raises
            raise TraceError(_explained(model, args, error)) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what torch prints and logs of a failure to itself: the error says it."""
    level, nowhere = logging.root.manager.disable, io.StringIO()
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


@contextlib.contextmanager
def attributes_kept(model: nn.Module) -> Iterator[None]:
    """Put back what code keeps of a run in attributes, in lists and dictionaries too: the tensors of an export are
    shapes without values."""
    before = [(module, dict(vars(module))) for module in model.modules()]
    held = [(value, value.copy()) for _, kept in before for value in kept.values() if type(value) in (list, dict)]
    try:
        yield
    finally:
        for module, kept in before:
            now = vars(module)
            for name in now.keys() - kept.keys():
                del now[name]
            now.update({name: value for name, value in kept.items() if now.get(name) is not value})
        for value, content in held:
            value.clear()
            value.extend(content) if isinstance(value, list) else value.update(content)


@contextlib.contextmanager
def plain_attention() -> Iterator[None]:
    """Keep fused attention in torch's transformer layers off for the while."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


@contextlib.contextmanager
def in_mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    """Put `model` in training or evaluation mode for the while.

    Batch norms with running statistics stay in evaluation: their channels are related alike, and an example of one
    image may have no variance.
    """
    with modes_kept(model):
        for module in model.train(training).modules():
            if isinstance(module, BatchNorm) and module.track_running_stats:
                module.eval()
        yield


def _place(error: BaseException) -> str:
    """Return where in the user's own code an error arose: the innermost line that is neither torch's nor ours."""
    frames = list[traceback.FrameSummary]()
    at: BaseException | None = error
    while at is not None and not frames:
        frames = [frame for frame in traceback.extract_tb(at.__traceback__) if _is_own(frame.filename)]
        at = at.__cause__ or at.__context__
    return f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""


def _is_own(file: str) -> bool:
    return Path(file).is_file() and not any(Path(file).is_relative_to(folder) for folder in FOREIGN)


def _explained(model: nn.Module, args: tuple[Any, ...], error: Exception) -> str:
    name, text = type(model).__name__, str(error).strip()
    fed = ", ".join(f"{tuple(a.shape)} {a.dtype}" if isinstance(a, Tensor) else type(a).__name__ for a in args)
    first = text.splitlines()[0][:MOST_SAID] if text else type(error).__name__
    if "data-dependent" in text or "DataDependent" in type(error).__name__ or "GuardOnDataDependent" in text:
        place = _place(error)
        return (
            f"{name} decides by the values of a tensor{place}, so it has no single graph: {first}. "
            "Trace the submodule that has none of this (the backbone, the head), and edit it in place"
        )
    return f"{name} cannot be exported on inputs ({fed}): {type(error).__name__}: {first}"
