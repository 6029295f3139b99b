"""The meter of a target, which times networks there and models how a network's latency depends on its widths."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prunus.backends.signature import Inputs, as_tuple
from prunus.backends.target import Target
from prunus.budget.latency_model import KnownLatency, LatencyModel
from prunus.budget.milliseconds import Measure, Reached
from prunus.deploy.latency import BenchmarkSettings
from prunus.deploy.latency_meter import LatencyMeter
from prunus.deploy.latency_model import Progress, followed_model, latency_model
from prunus.deploy.latency_table import LatencyTable, table_key
from prunus.errors import DeployError
from prunus.graph import ChannelGroups
from prunus.modules.given import arguments


class TargetMeter:
    """Times networks on a target, each in turn with a reference (`LatencyMeter`).

    With it as the meter of `prunus.select`, a budget in milliseconds is solved under a model of the latency.

    Args:
        target: where the network will run.
        inputs: an example of its inputs, a tensor [N, ...] or a tuple of them; N becomes the target's batch.
        reference: the network that each is timed in turn with; if None, the first network that is timed.
        table: file of the units' milliseconds, which is read, extended, and created if absent; if None, the target's.
        any_hardware: use a table that was measured on another target.
        warmup: rounds before timing starts.
        repeats: timed rounds.
        progress: called for each unit and network with the kind, the number done and the number in all.

    Raises:
        DeployError: the backend is absent; the example has another resolution; the table is of another target.
    """

    def __init__(
        self,
        target: Target,
        inputs: Inputs,
        *,
        reference: nn.Module | None = None,
        table: str | Path | None = None,
        any_hardware: bool = False,
        warmup: int = 5,
        repeats: int = 30,
        progress: Progress | None = None,
    ) -> None:
        self.target, self.progress = target, progress
        self.inputs = _at(target, as_tuple(inputs))
        table = target.table if table is None else table
        path = None if table is None else Path(table)
        if target.remote and path is not None and not path.is_file():
            raise DeployError(f"{path} is not there: `prunus target read` makes the table of a remote target")
        self.table = LatencyTable(table_key(target), path, any_hardware=any_hardware)
        self.settings = BenchmarkSettings(
            backends=(), targets=(target,), warmup=warmup, repeats=repeats, measure_memory=False
        )
        self.reached: Reached | None = None  # of the last budget that was solved with it
        self._meter: LatencyMeter | None = None
        if reference is not None and not target.remote:
            self._meter = LatencyMeter(reference, self.inputs, self.settings)

    def __call__(self, model: nn.Module, /) -> float:
        """Return the median latency of `model` in milliseconds, BatchNorm folded.

        Raises:
            DeployError: the target is another machine.
        """
        if self.target.remote:
            raise DeployError(
                f"{self.target} is another machine, where nothing can be measured from here: its table predicts, with "
                'Budget(..., solver="exact")'
            )
        if self._meter is None:
            self._meter = LatencyMeter(model, self.inputs, self.settings)
        return self._meter(model)

    def latency_model(self, model: nn.Module, groups: ChannelGroups, measure: Measure, /) -> LatencyModel:
        """Return the latency model of `model`, whose units are measured or read from the table."""
        return latency_model(model, groups, self.inputs, self.target, measure, table=self.table, progress=self.progress)

    def follow(self, known: KnownLatency, model: nn.Module, groups: ChannelGroups, /) -> LatencyModel:
        """Return the latency model of `model`, a narrower version of the network of `known`."""
        return followed_model(known, model, groups, self.inputs)

    def tell(self, reached: Reached, /) -> None:
        """Store the milliseconds reached and predicted."""
        self.reached = reached


def usual_meter(model: nn.Module, inputs: Any, target: Target | None = None) -> TargetMeter | None:
    """Return the meter of a budget with this target, by default ONNX Runtime on one thread; None if `inputs` are not
    tensors.

    Raises:
        DeployError: the backend of `target` is absent, or the network does not run there.
    """
    args = arguments(inputs)
    if not args or not all(isinstance(one, Tensor) for one in args):
        return None
    target = target or Target(batch=len(args[0]) if args[0].dim() else 1)
    return TargetMeter(target, args, reference=model, warmup=10, repeats=50)


def _at(target: Target, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return the example with the target's batch size."""
    for tensor in inputs:
        size = tuple(tensor.shape[-2:])
        if target.resolution is not None and tensor.dim() == 4 and size != target.resolution:
            raise DeployError(
                f"the example is {' x '.join(map(str, size))}, the target {' x '.join(map(str, target.resolution))}: "
                "give an example of the target's resolution, and trace the network with it"
            )
    return tuple(
        tensor if not tensor.dim() or len(tensor) == target.batch else torch.cat([tensor[:1]] * target.batch)
        for tensor in inputs
    )
