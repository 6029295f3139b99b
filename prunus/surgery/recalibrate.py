"""Recalibration: estimate the running statistics of BatchNorm again, for instance after a cut without training."""

import contextlib
import random
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from prunus.errors import DataError, EditError
from prunus.modules.kinds import BatchNorm
from prunus.modules.modes import evaluating
from prunus.modules.tree import mapped

Network = TypeVar("Network", bound=nn.Module)


@torch.no_grad()
def recalibrate(model: Network, batches: Iterable[Any]) -> Network:
    """Estimate the running mean and variance of each BatchNorm of `model` again, in place, and return `model`.

    They become the averages of the batches' means and unbiased variances, as with `momentum=None`: after k batches,
    m_k = m_{k-1} + (x_k - m_{k-1}) / k. `num_batches_tracked` becomes the number of batches. All other modules run in
    evaluation mode; modes, momenta, parameters, random states and the statistics of norms that no batch reaches are not
    changed.

    Args:
        model: the network; it may be wrapped.
        batches: each a tensor; or a tuple or list, as a loader gives, whose first item is the input; or a mapping of
            keyword arguments.

    Raises:
        EditError: no BatchNorm keeps running statistics, or none is reached.
        DataError: there are no batches, or the statistics are not finite. The old statistics are then restored, as
            they are if the network itself raises.
    """
    norms = {path: each for path, each in model.named_modules() if isinstance(each, BatchNorm) and _tracks(each)}
    if not norms:
        raise EditError(f"recalibrate: no BatchNorm of {type(model).__name__} keeps running statistics")
    before = {path: {name: each.clone() for name, each in norm.named_buffers()} for path, norm in norms.items()}
    device, count = next(iter(norms.values())).running_mean.device, 0  # type: ignore[union-attr]
    reached = dict[str, Any]()
    try:
        with evaluating(model), _estimating(norms.values()), _random_kept(device):
            for batch in batches:
                _run(model, batch, device)
                count += 1
        reached = {path: norm for path, norm in norms.items() if norm.num_batches_tracked}
        _require(count, reached, type(model).__name__)
        before = {path: values for path, values in before.items() if path not in reached}
    finally:  # restore norms that were not reached, or all of them after an error
        for path, values in before.items():
            for name, value in values.items():
                norms[path].get_buffer(name).copy_(value)
    return model


def _tracks(norm: Any) -> bool:
    return norm.running_mean is not None and norm.num_batches_tracked is not None


@contextlib.contextmanager
def _estimating(norms: Iterable[Any]) -> Iterator[None]:
    """Let norms average over all batches within the context; restore their momentum at the end."""
    momenta = [(norm, norm.momentum) for norm in norms]
    try:
        for norm, _ in momenta:
            norm.reset_running_stats()
            norm.momentum, norm.training = None, True
        yield
    finally:
        for norm, momentum in momenta:
            norm.momentum = momentum


@contextlib.contextmanager
def _random_kept(device: torch.device) -> Iterator[None]:
    """Restore the random states at the end, since a loader draws from them too."""
    states = random.getstate(), np.random.get_state()
    cuda = [device] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=cuda):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


def _run(model: nn.Module, batch: Any, device: torch.device) -> None:
    if isinstance(batch, tuple | list) and batch:
        batch = batch[0]
    if not isinstance(batch, Tensor | Mapping):
        raise DataError(
            f"recalibrate: a batch is a tensor, a tuple or list whose first item is one, or a mapping of keyword "
            f"arguments, not a {type(batch).__name__}"
        )
    batch = mapped(lambda leaf: leaf.to(device) if isinstance(leaf, Tensor) else leaf, batch)
    try:
        model(**batch) if isinstance(batch, Mapping) else model(batch)
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise DataError(
            f"recalibrate: a batch is too small to have a variance: {error}; give larger batches"
        ) from error


def _require(count: int, reached: Mapping[str, Any], name: str) -> None:
    if not count:
        raise DataError("recalibrate: there are no batches; an iterator that has been used up gives none")
    if not reached:
        raise EditError(f"recalibrate: no BatchNorm of {name} runs in evaluation mode")
    for path, norm in reached.items():
        if not bool(norm.running_mean.isfinite().all() and norm.running_var.isfinite().all()):
            raise DataError(
                f"recalibrate: the statistics of {path} are not finite: look at the batches and the weights"
            )
