"""The latency model of a network on a target, from measurements (or a table) of its units and of whole networks."""

import hashlib
import math
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prunus.backends import Backend
from prunus.backends.target import Target
from prunus.budget.choices import layer_choices, removed
from prunus.budget.latency_model import PRIOR, Curve, KnownLatency, LatencyModel, Unit
from prunus.deploy.latency_table import LatencyTable, table_key
from prunus.deploy.unit_curves import measured_curve
from prunus.deploy.units import NetworkUnit, UnitShape, network_units
from prunus.errors import DeployError
from prunus.graph import ChannelGroups
from prunus.graph.cost import Term
from prunus.interrupt import check

RUNS = (3, 12)  # of a unit: at least, at most
ENOUGH_MS = 40.0  # milliseconds for all runs of a unit at one size
SHARES = (0.0, 0.3, 0.55, 0.75)  # removed from each layer in the whole networks that are measured first
OFF = (0.2, 0.6)  # further shares, with one channel fewer than a multiple of the target's step

Progress = Callable[[str, int, int], None]  # kind ("units", "networks"), number done, number in all
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
        table: units; missing ones are measured and saved in it one by one. A remote target's must be complete.
        progress: called for each unit and network.

    Raises:
        DeployError: the target's backend is absent, or does not run a unit; the table of a remote target is of another
            network.
        TraceError: the network cannot be read.
    """
    units = network_units(model, groups, inputs)
    known = LatencyTable(table_key(target)) if table is None else table
    distinct = dict.fromkeys((unit.shape, unit.full, is_open(groups, unit)) for unit in units)
    curves: dict[Any, Curve] = {}
    for number, (shape, full, open_) in enumerate(distinct):
        measured_unit = _known(shape, known) if target.remote else _meter(shape, target, known)
        curves[shape, full, open_] = measured_curve(full, open_, measured_unit, planned=target.remote)
        if not target.remote:
            known.save()
        if progress is not None:
            progress("units", number + 1, len(distinct))
    own = tuple(_unit(u, curves[u.shape, u.full, is_open(groups, u)]) for u in units)
    others = _others(own, groups)
    step, block = _step(own, groups, 0), _step([unit for unit in own if len(unit.sizes) > 1], groups, 1)
    fresh = LatencyModel(units=own, others=others, weights=PRIOR, step=step, block=block)
    if target.remote:
        return fresh.fitted(_networks_there(known, fingerprint(units, groups), len(groups)))
    measured: list[tuple[Tensor, float]] = []
    networks = spread_networks(groups, step)
    for number, alive in enumerate(networks):
        measured.insert(0, (alive, measure(~alive)))
        if progress is not None:
            progress("networks", number + 1, len(networks))
    return fresh.fitted(measured)


def followed_model(
    known: KnownLatency, model: nn.Module, groups: ChannelGroups, inputs: tuple[Any, ...]
) -> LatencyModel:
    """Return the latency model of `model`, a narrower version of the network of `known`; nothing is measured.

    Raises:
        TraceError: the network cannot be read.
    """
    curves = {(unit.name, unit.shape): unit.curve for unit in known.units}
    units = [unit for unit in network_units(model, groups, inputs) if (unit.name, unit.shape.key) in curves]
    own = tuple(_unit(unit, curves[unit.name, unit.shape.key]) for unit in units)
    weights = np.array(known.weights)
    return LatencyModel(units=own, others=_others(own, groups), weights=weights, step=known.step, block=known.block)


def _unit(unit: NetworkUnit, curve: Curve) -> Unit:
    return Unit(name=unit.name, shape=unit.shape.key, curve=curve, sizes=unit.sizes, written=unit.written)


def _others(units: Sequence[Unit], groups: ChannelGroups) -> tuple[Term, ...]:
    """Return the multiply-adds outside of all units."""
    covered = {unit.name for unit in units}
    return tuple(term for term in groups.cost.macs if term.module not in covered)


def is_open(groups: ChannelGroups, unit: NetworkUnit) -> tuple[bool, ...]:
    """Return for each of a unit's sizes whether any of its channels can be removed."""
    return tuple(bool(groups.exact[size[size >= 0]].any()) for size in unit.sizes)


def _meter(shape: UnitShape, target: Target, table: LatencyTable) -> Callable[[tuple[int, ...]], float]:
    backend = target.require()

    def milliseconds(sizes: tuple[int, ...]) -> float:
        sizes = shape.possible(sizes)
        taken = table.find(shape.key, sizes)
        if taken is None:
            check()
            taken = max(1e-6, _measured(shape, sizes, target, backend))
            table.add(shape.key, sizes, taken)
        return taken

    return milliseconds


def _known(shape: UnitShape, table: LatencyTable) -> Callable[[tuple[int, ...]], float]:
    def milliseconds(sizes: tuple[int, ...]) -> float:
        taken = table.find(shape.key, shape.possible(sizes))
        if taken is None:
            raise DeployError(
                f"{table.path} lacks {shape.key} at {' x '.join(map(str, sizes))}: it was measured for another "
                "network, or at another resolution. Make a kit of this one with `prunus target kit`, and measure that"
            )
        return taken

    return milliseconds


def _networks_there(table: LatencyTable, name: str, num_groups: int) -> list[tuple[Tensor, float]]:
    """Return the whole networks of a table and their milliseconds, the narrowest first."""
    found = list[tuple[Tensor, float]]()
    for each in table.networks(name):
        alive = torch.ones(num_groups, dtype=torch.bool)
        if max(each.removed, default=0) >= num_groups:
            raise DeployError(f"{table.path} was changed: it names the group {max(each.removed)} of {num_groups}")
        alive[list(each.removed)] = False
        found.append((alive, each.ms))
    if not found:
        raise DeployError(
            f"{table.path} has this network's units but no whole-network times for it: make a kit of it with `prunus "
            "target kit`, and measure that"
        )
    return sorted(found, key=lambda each: int(each[0].sum()))


def fingerprint(units: Sequence[NetworkUnit], groups: ChannelGroups) -> str:
    """Return the name of a network in a table; networks with the same units and channel groups have the same name."""
    parts = [(unit.name, unit.shape.key, unit.full) for unit in units]
    return hashlib.sha256(repr((parts, len(groups))).encode()).hexdigest()[:16]


def _measured(shape: UnitShape, sizes: tuple[int, ...], target: Target, backend: Backend) -> float:
    """Return the minimum milliseconds of a unit, which excludes delays by other work on the machine."""
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
    """Return the step along `axis` that accounts for most of the units' time."""
    times: dict[int, float] = {}
    for unit in units:
        times[unit.curve.steps[axis]] = times.get(unit.curve.steps[axis], 0.0) + unit.milliseconds(groups.all_alive())
    return max(times, key=lambda step: times[step]) if times else 1


def spread_networks(groups: ChannelGroups, step: int) -> list[Tensor]:
    """Return the groups that stay, bool [num_groups], of the full network and of evenly narrowed ones."""
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
