"""The subcommands: each takes the options that the parser has read."""

import argparse
from pathlib import Path
from typing import Any

from prunus import trust
from prunus.cli.process import import_from_current_folder
from prunus.decoding import SETTINGS, DecodingError, read_text
from prunus.errors import RecipeError
from prunus.interrupt import check
from prunus.terminal import Terminal

SHIPPED = Path(__file__).parents[1] / "recipes"


def run(options: argparse.Namespace) -> None:
    """Run a recipe: train, shrink to the budget, export, measure, report."""
    from prunus import pipeline, recipe, records, report
    from prunus.display import Display
    from prunus.train.distributed import is_first

    import_from_current_folder()
    console = Terminal(quiet=not is_first())
    display = Display(console)
    chosen = recipe.load(pipeline.Recipe, find_recipe(options.recipe), options.overrides)
    watch = pipeline.Watch(stage=display.stage, epoch=display.epoch, step=display.step)
    with display.live():
        folder = pipeline.run(chosen, watch=watch, accept_changes=options.accept_changes)
    check()
    if not is_first():
        return
    console.print(report.table(records.readable(folder)[0]))
    console.print(f"report: {folder / 'report.html'}", soft_wrap=True)


def trace(options: argparse.Namespace) -> None:
    """Say which channels of a network can be removed, exactly or not at all, and why."""
    from prunus.graph import trace

    network = _named(options, options.network, options.set, options.shape)
    groups = trace(network.model, network.example(), whole_heads=options.whole_heads)
    Terminal().print(groups.coverage())


def export(options: argparse.Namespace) -> None:
    """Export a network, or the narrow network of a run, to ONNX and check that it is equal."""
    import torch

    from prunus.deploy import check_parity, export_onnx, require
    from prunus.deploy.parity import checker
    from prunus.modules.modes import in_evaluation

    if "." in options.backend:
        import_from_current_folder()
    checker(options.backend)
    torch.manual_seed(0)
    network = _named(options, options.network, options.set, options.shape)
    model, inputs = in_evaluation(network.model), network.example()
    path = export_onnx(model, inputs, options.output)
    record = check_parity(model, path, inputs, backend=options.backend)
    require(record)
    text = f"{path}: equal to PyTorch within {record.max_rel_diff:.1e} relative on {record.backend}"
    Terminal().print(text, soft_wrap=True)


def bench(options: argparse.Namespace) -> None:
    """Time ONNX files or networks against each other, interleaved."""
    from rich.table import Table

    from prunus.deploy import BenchmarkSettings, benchmark
    from prunus.deploy.export import input_shape
    from prunus.modules.modes import in_evaluation

    if "." in options.backends:
        import_from_current_folder()
    settings = BenchmarkSettings(
        backends=tuple(name.strip() for name in options.backends.split(",")),
        threads=options.threads,
        repeats=options.repeats,
        batch_size=options.batch_size,
    )
    networks: dict[str, Any] = {}
    shapes: dict[tuple[int, ...], str] = {}
    for item in options.networks:
        name, _, source = item.rpartition("=")
        name = name or source
        if name in networks:
            raise RecipeError(f"two networks are called {name}: give each a name of its own, as in first={source}")
        if source.endswith(".onnx"):
            networks[name], own = Path(source), input_shape(Path(source))
        else:
            found = _named(options, source)
            networks[name], own = in_evaluation(found.model), found.input_shape[1:]
        if own is not None:
            shapes.setdefault(own, name)
    if options.shape is None and len(shapes) > 1:
        told = ", ".join(f"{name} {shape}" for shape, name in shapes.items())
        raise RecipeError(f"the networks are for inputs of different shapes ({told}): give one for all with --shape")
    shape = options.shape or next(iter(shapes), (3, 224, 224))
    for own, name in shapes.items():
        if len(own) != len(shape):
            raise RecipeError(f"--shape {shape} does not fit {name}, whose input is {own}: give it without the batch")
    title = f"{settings.batch_size} x {' x '.join(map(str, shape))}, {settings.threads} thread(s)"
    table = Table("network", "backend", "median ms", "p95 ms", "peak MB", title=title)
    for record in benchmark(networks, shape, settings):
        peak = "n/a" if record.peak_memory_mb is None else f"{record.peak_memory_mb:.0f}"
        table.add_row(record.model, record.backend, f"{record.median_ms:.2f}", f"{record.p95_ms:.2f}", peak)
    Terminal().print(table)


def report(options: argparse.Namespace) -> None:
    """Write report.html anew from a run's records, and print its table."""
    from prunus import records, report

    path = report.write(options.folder)
    Terminal().print(report.table(records.readable(options.folder)[0]))
    Terminal().print(f"report: {path}", soft_wrap=True)


def recipes(options: argparse.Namespace) -> None:
    """List the recipes that come with Prunus, and those in ./recipes."""
    shipped = sorted(SHIPPED.glob("*.yaml"))
    known = {path.resolve() for path in shipped}
    own = [path for path in sorted(Path("recipes").glob("*.yaml")) if path.resolve() not in known]
    for name, path in [*((path.stem, path) for path in shipped), *((str(path), path) for path in own)]:
        try:
            first = read_text(path, SETTINGS.size).partition("\n")[0].removeprefix("#").strip()
        except (OSError, DecodingError) as error:
            first = f"cannot be read: {error}"
        Terminal().print(f"{name}  {first}", soft_wrap=True)


def _named(options: argparse.Namespace, name: str, settings: Any = (), shape: tuple[int, ...] | None = None) -> Any:
    """Return the network that `name` stands for. The folder of a run is code: it must be the user's own, or trusted."""
    from prunus.named import named

    if Path(name).is_dir():
        trust.require(Path(name), trusted=options.trust)
    import_from_current_folder()
    return named(name, settings, shape)


def find_recipe(recipe: str) -> Path:
    """Return the file that `recipe` names: a path, or the name of one that comes with Prunus."""
    shipped = SHIPPED / f"{recipe}.yaml"
    return shipped if not Path(recipe).is_file() and shipped.is_file() else Path(recipe)
