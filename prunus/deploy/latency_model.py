"""The latency model of a network on a target: its units are measured, or known from a table, then whole networks."""

import math
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prunus.budget.choices import layer_choices, removed
from prunus.budget.latency_model import PRIOR, Curve, LatencyModel, Unit
from prunus.budget.target import Target
from prunus.deploy.backends import Backend
from prunus.deploy.latency_table import LatencyTable
from prunus.deploy.measuring import require
from prunus.deploy.unit_curves import measured_curve
from prunus.deploy.units import NetworkUnit, UnitShape, network_units
from prunus.graph import ChannelGroups
from prunus.interrupt import check

RUNS = (3, 12)  # of a unit: at least, at most
ENOUGH_MS = 40.0  # of all runs of a unit at one size
SHARES = (0.0, 0.3, 0.55, 0.75)  # removed of each layer: the whole networks that are measured first
OFF = (0.2, 0.6)  # the same, and one channel more than leaves a multiple of the target's step

Progress = Callable[[str, int, int], None]  # what, how many of them are done, how many there are
Measure = Callable[[Tensor], float]  # milliseconds of the network without the groups, bool [num_groups]


def latency_model(
    model: nn.Module,
    groups: ChannelGroups,
    inputs: tuple[Any, ...],
    target: Target,
    measure: Measure,
    *,
    table: LatencyTable | None = None,
    progress: Progress | None = None,
) -> LatencyModel:
    """Return the latency model of `model` on `target`.

    Args:
        model: the network, as traced; it is not changed.
        groups: `prunus.trace` of it.
        inputs: the example, at the target's batch and resolution.
        target: where units are measured.
        measure: measures whole networks there.
        table: of units; what it lacks is measured and saved in it, unit by unit.
        progress: told of each unit and network.

    Raises:
        DeployError: the target's backend is absent, or does not run a unit.
        TraceError: the network cannot be read.
    """
    units = network_units(model, groups, inputs)
    known = LatencyTable(target.key()) if table is None else table
    distinct = dict.fromkeys((unit.shape, unit.full, _open(groups, unit)) for unit in units)
    curves: dict[Any, Curve] = {}
    for number, (shape, full, is_open) in enumerate(distinct):
        curves[shape, full, is_open] = measured_curve(full, is_open, _meter(shape, target, known))
        known.save()
        if progress is not None:
            progress("units", number + 1, len(distinct))
    own = tuple(
        Unit(name=u.name, curve=curves[u.shape, u.full, _open(groups, u)], sizes=u.sizes, written=u.written)
        for u in units
    )
    covered = {unit.name for unit in units}
    others = tuple(term for term in groups.cost.macs if term.module not in covered)
    step, block = _step(own, groups, 0), _step([unit for unit in own if len(unit.sizes) > 1], groups, 1)
    fresh = LatencyModel(units=own, others=others, weights=PRIOR, step=step, block=block)
    measured: list[tuple[Tensor, float]] = []
    networks = _spread(groups, step)
    for number, alive in enumerate(networks):
        measured.insert(0, (alive, measure(~alive)))
        if progress is not None:
            progress("networks", number + 1, len(networks))
    return fresh.fitted(measured)


def _open(groups: ChannelGroups, unit: NetworkUnit) -> tuple[bool, ...]:
    """Return for each of a unit's sizes whether channels of it may go."""
    return tuple(bool(groups.exact[size[size >= 0]].any()) for size in unit.sizes)


def _meter(shape: UnitShape, target: Target, table: LatencyTable) -> Callable[[tuple[int, ...]], float]:
    backend = require(target)

    def milliseconds(sizes: tuple[int, ...]) -> float:
        sizes = shape.possible(sizes)
        taken = table.find(shape.key, sizes)
        if taken is None:
            check()
            taken = max(1e-6, _measured(shape, sizes, target, backend))
            table.add(shape.key, sizes, taken)
        return taken

    return milliseconds


def _measured(shape: UnitShape, sizes: tuple[int, ...], target: Target, backend: Backend) -> float:
    """Return the least milliseconds of a unit: what the machine adds while it does other things is no part of it."""
    given = np.random.default_rng(0).standard_normal(shape.input_shape(sizes), dtype=np.float32)
    with tempfile.TemporaryDirectory(prefix="prunus-") as folder:
        network: Path | nn.Module
        if backend.reads_modules:
            with torch.random.fork_rng(devices=[]):
                network = shape.module(sizes).eval()
        else:
            path = Path(folder) / "unit.onnx"
            shape.write(sizes, path)
            network = path if target.precision != "int8" else _quantized(path, given, backend)
        first = backend.unit_milliseconds(network, [given], target.threads, RUNS[0])
        more = int(min(RUNS[1], ENOUGH_MS / max(first, 1e-3)) - RUNS[0])
        return min(first, backend.unit_milliseconds(network, [given], target.threads, more)) if more > 0 else first


def _quantized(path: Path, given: np.ndarray, backend: Backend) -> Path:
    output = path.with_name(f"int8{backend.int8_suffix}")
    backend.quantize(path, output, [(given,)])
    return output


def _step(units: Sequence[Unit], groups: ChannelGroups, axis: int) -> int:
    """Return the step along `axis` of most of the units' time."""
    times: dict[int, float] = {}
    for unit in units:
        times[unit.curve.steps[axis]] = times.get(unit.curve.steps[axis], 0.0) + unit.milliseconds(groups.all_alive())
    return max(times, key=lambda step: times[step]) if times else 1


def _spread(groups: ChannelGroups, step: int) -> list[Tensor]:
    """Return networks from the whole one to narrow ones, bool [num_groups] each, all layers alike."""
    layers = layer_choices(groups, torch.ones(len(groups), dtype=torch.float64), {}, 1)
    found = []
    for share, less in (*((share, 0) for share in SHARES), *((share, 1) for share in OFF)):
        chosen = []
        for layer in layers:
            left = math.ceil((layer.size - share * layer.counts[-1]) / step) * step - less
            place = int(np.searchsorted(layer.counts, layer.size - min(layer.size, left)))
            chosen.append(min(place, layer.counts.size - 1))
        found.append(~removed(groups, layers, chosen))
    return found
