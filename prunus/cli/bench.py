"""`prunus bench`: latencies of networks at several resolutions on several backends, and times per layer."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from prunus.deploy import BenchmarkSettings, Target
from prunus.deploy.bench_table import bench_table, frames_per_second, layer_times, rows, write_rows
from prunus.deploy.export import input_shape
from prunus.errors import RecipeError
from prunus.interrupt import check
from prunus.modules.modes import in_evaluation
from prunus.records import LatencyRecord
from prunus.terminal import Terminal
from prunus.writing import check_replaceable

MOST_LAYERS = 25  # shown

Shape = tuple[int, ...]


def bench(options: argparse.Namespace, named: Callable[[str], Any]) -> None:
    """Print the table and write it to `options.output`; `named` finds a network that is not an ONNX file."""
    settings = BenchmarkSettings(
        backends=() if options.target else tuple(name.strip() for name in options.backends.split(",")),
        threads=options.threads,
        repeats=options.repeats,
        batch_size=options.batch_size,
        targets=tuple(map(Target.parse, options.target)),
    )
    if wrong := [path for path in options.output if path.suffix not in (".csv", ".json")]:
        raise RecipeError(f"--output {wrong[0]}: give a name that ends in .csv or .json")
    if absent := [path for path in options.output if not path.parent.is_dir()]:
        raise RecipeError(f"--output {absent[0]}: there is no folder {absent[0].parent}: make it, or name another")
    for path in options.output:
        check_replaceable(path)
    networks, own = _networks(options, named)
    shape = _shape(options, own)
    shapes = [(*shape[:-2], *size) for size in options.resolutions] or [shape]
    records = bench_table(networks, shapes, settings)
    _print_table(records)
    for path in options.output:
        write_rows(path, rows(records))
    if options.layers:
        asked = dict.fromkeys((target.sized(one), target) for one in shapes for target in settings.all_targets)
        for name, network in networks.items():
            for one, target in asked:
                _print_layers(name, network, one, target)


def _print_table(records: Sequence[LatencyRecord]) -> None:
    """Print a table per shape and number of threads, to keep each narrow."""
    for shape, threads in dict.fromkeys((record.input_shape, record.threads) for record in records):
        title = f"{' x '.join(map(str, shape))}, {threads} thread(s)"
        table = Table("network", "backend", "median ms", "p95 ms", "fps", "peak MB", title=title)
        for record in (one for one in records if (one.input_shape, one.threads) == (shape, threads)):
            peak = "n/a" if record.peak_memory_mb is None else f"{record.peak_memory_mb:.0f}"
            times = f"{record.median_ms:.2f}", f"{record.p95_ms:.2f}", f"{frames_per_second(record):.1f}"
            table.add_row(record.model, record.backend, *times, peak)
        Terminal().print(table)


def _print_layers(name: str, network: Any, shape: Shape, target: Target) -> None:
    check()
    times = layer_times(network, shape, target)
    whole = sum(one.milliseconds for one in times)
    title = f"{name}, {' x '.join(map(str, shape))}, {target}: {whole:.2f} ms in {len(times)} operators"
    table = Table("operator", "kind", "ms", "share", title=title)
    for one in times[:MOST_LAYERS]:
        table.add_row(one.name, one.kind, f"{one.milliseconds:.3f}", f"{one.milliseconds / whole:.1%}")
    Terminal().print(table)


def _networks(options: argparse.Namespace, named: Callable[[str], Any]) -> tuple[dict[str, Any], dict[Shape, str]]:
    """Return the networks by name, and the shapes of their inputs, each with the name of a network."""
    networks: dict[str, Any] = {}
    shapes: dict[Shape, str] = {}
    for item in options.networks:
        name, _, source = item.rpartition("=")
        name = name or source
        if name in networks:
            raise RecipeError(f"two networks are called {name}: give each a name of its own, as in first={source}")
        if source.endswith(".onnx"):
            networks[name], own = Path(source), input_shape(Path(source))
        else:
            found = named(source)
            networks[name], own = in_evaluation(found.model), found.input_shape[1:]
        if own is not None:
            shapes.setdefault(own, name)
    return networks, shapes


def _shape(options: argparse.Namespace, own: dict[Shape, str]) -> Shape:
    """Return the shape of the input without the batch dimension: from the options, or the networks' own."""
    if options.shape is None and len(own) > 1:
        told = ", ".join(f"{name} {shape}" for shape, name in own.items())
        raise RecipeError(f"the networks are for inputs of different shapes ({told}): give one for all with --shape")
    shape: Shape = options.shape or next(iter(own), (3, 224, 224))
    for other, name in own.items():
        if len(other) != len(shape):
            raise RecipeError(f"--shape {shape} does not fit {name}, whose input is {other}: give it without the batch")
    return shape
