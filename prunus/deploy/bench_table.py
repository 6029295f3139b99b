"""The table of `prunus bench`: latencies at several resolutions on several targets, and times per layer."""

import csv
import dataclasses
import io
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from prunus.backends import NodeTime, Shape
from prunus.backends.target import Target
from prunus.deploy.export import export_onnx
from prunus.deploy.latency import BenchmarkSettings, benchmark
from prunus.errors import DeployError
from prunus.modules.tensors import device_of
from prunus.records import LatencyRecord
from prunus.writing import write_whole

PROFILED = 10  # runs


def bench_table(
    networks: Mapping[str, Path | nn.Module], shapes: Sequence[Shape], settings: BenchmarkSettings
) -> list[LatencyRecord]:
    """Return a record for each network, shape and target of `settings`; networks of one shape are timed in turn.

    A target with a resolution of its own is timed at that resolution only.

    Args:
        networks: ONNX files or modules.
        shapes: shapes of the input, without the batch dimension.
        settings: targets, rounds.

    Raises:
        DeployError: see `benchmark`.
    """
    asked: dict[Shape, dict[Target, None]] = {}
    for shape in shapes:
        for target in settings.all_targets:
            asked.setdefault(target.sized(shape), {})[target] = None
    return [
        record
        for shape, targets in asked.items()
        for record in benchmark(dict(networks), shape, at(settings, *targets))
    ]


def at(settings: BenchmarkSettings, *targets: Target) -> BenchmarkSettings:
    """Return `settings` with `targets` as the only targets."""
    return dataclasses.replace(settings, backends=(), targets=targets)


def frames_per_second(record: LatencyRecord) -> float:
    """Return the images per second at the median latency."""
    return 1000 * record.input_shape[0] / record.median_ms


def rows(records: Sequence[LatencyRecord]) -> list[dict[str, Any]]:
    """Return `records` as rows of a table, with images per second."""
    found = []
    for record in records:
        row = {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
        row["input_shape"] = "x".join(map(str, record.input_shape))
        found.append({**row, "fps": frames_per_second(record)})
    return found


def write_rows(path: Path, table: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as CSV or JSON, depending on the file's suffix.

    Raises:
        DeployError: another suffix.
        OSError: the file cannot be written.
    """
    if path.suffix == ".json":
        write_whole(path, (json.dumps(list(table), indent=1) + "\n").encode())
    elif path.suffix == ".csv":
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(table[0]))
        writer.writeheader()
        writer.writerows(table)
        write_whole(path, text.getvalue().encode())
    else:
        raise DeployError(f"{path} is neither .csv nor .json: give a name that ends so")


def layer_times(network: Path | nn.Module, shape: Shape, target: Target) -> list[NodeTime]:
    """Return the time of each operator of a network on a target, from the backend's own profile, the longest first.

    Args:
        network: an ONNX file or a module.
        shape: shape of the input, without the batch dimension.
        target: backend, threads, batch; `shape` already has its resolution.

    Raises:
        DeployError: the backend is absent, or does not load or run the network.
    """
    chosen = target.require()
    given = np.random.default_rng(0).standard_normal((target.batch, *shape), dtype=np.float32)
    with tempfile.TemporaryDirectory(prefix="prunus-") as folder:
        if isinstance(network, nn.Module) and not chosen.reads_modules:
            example = torch.from_numpy(given).to(device_of(network))
            network = export_onnx(network, example, Path(folder) / "network.onnx", dynamic_batch=False)
        times = chosen.profile(network, [given], target.threads, PROFILED)
    return sorted(times, key=lambda one: -one.milliseconds)
