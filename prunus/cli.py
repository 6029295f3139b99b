"""The command line.

Exit codes: 0 done; 1 refused or failed, with the reason on stderr; 2 the command line itself is wrong;
130 and 143 interrupted by Ctrl-C or SIGTERM after a checkpoint.
"""

import argparse
import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console

from prunus.errors import PrunusError, RecipeError
from prunus.train.interrupt import InterruptedTrainingError

DESCRIPTION = """Grow wide, ship narrow: train a wide network, get back the smallest one that does the job.

  prunus recipes                                   what can be run
  prunus run street_erfnet train.epochs=3          train, shrink, export, measure, report
  prunus run camvid_erfnet data.root=/data/camvid  on your data
  prunus trace torchvision.models:resnet18         what could be removed from a network
"""
SHIPPED = Path(__file__).parent / "recipes"
EPILOG = """exit codes: 0 done; 1 refused or failed, the reason is on stderr; 2 the command line is wrong;
130 and 143 interrupted (Ctrl-C, SIGTERM): a checkpoint is written, the same command goes on from there
"""
EXAMPLES = {
    "run": """A recipe is a YAML file, or the name of one that comes with Prunus. What it says can be overridden:

  prunus run street_erfnet
  prunus run my.yaml shrink.budget.macs=0.3 train.epochs=50 output=runs/third

The folder of the run (runs/NAME) holds report.html, narrow.onnx, checkpoints and records. A run that was
interrupted goes on by the same command; with --accept-changes also under a recipe that was changed.""",
    "trace": """  prunus trace torchvision.models:resnet18
  prunus trace my.networks:Net --set num_classes=19 --shape 1,3,512,1024""",
    "export": """  prunus export torchvision.models:resnet18 --output resnet18.onnx
  prunus export my.networks:Net --set num_classes=19 --backend openvino
  prunus export runs/street_erfnet --output narrow.onnx""",
    "bench": """  prunus bench wide=runs/street/wide.onnx narrow=runs/street/narrow.onnx --shape 3,128,256
  prunus bench torchvision.models:resnet18 torchvision.models:resnet34 --backends onnxruntime,openvino""",
    "report": "  prunus report runs/street_erfnet",
    "recipes": "  prunus recipes",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    errors = _console(stderr=True)
    known = parser()
    options, rest = known.parse_known_args(arguments)
    if rest and options.command is _run and not any(item.startswith("-") for item in rest):
        options.overrides += rest  # argparse takes no more of them behind an option
    elif rest:
        known.error(f"unrecognized arguments: {' '.join(rest)}")
    if str(Path.cwd()) not in sys.path:  # a user's own module:callable lies where they stand
        sys.path.insert(0, str(Path.cwd()))
    try:
        with _terminable():
            options.command(options)
    except InterruptedTrainingError as error:
        errors.print(f"prunus: {error}", soft_wrap=True)
        return 128 + error.signal
    except (PrunusError, OSError) as error:
        errors.print(f"prunus: {type(error).__name__}:", style="bold red", end=" ")
        errors.print(str(error), soft_wrap=True)
        return 1
    except (KeyboardInterrupt, _Terminated) as error:
        again = "; the same command goes on from the last checkpoint" if options.command is _run else ""
        errors.print(f"prunus: interrupted{again}", soft_wrap=True)
        return 130 if isinstance(error, KeyboardInterrupt) else 143
    return 0


class _Terminated(BaseException):
    """SIGTERM, where no training waits for it."""


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Turn SIGTERM into an exception, so that what is open is closed; the training loop has its own way."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise _Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    whole = argparse.ArgumentParser(
        prog="prunus", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = whole.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, function: Callable[[argparse.Namespace], None], text: str) -> argparse.ArgumentParser:
        layout = argparse.RawDescriptionHelpFormatter
        command = commands.add_parser(
            name, help=text, description=f"{text}.", epilog=EXAMPLES[name], formatter_class=layout
        )
        command.set_defaults(command=function)
        return command

    run = add("run", _run, "Run a recipe: train, shrink to the budget, export, measure, report")
    run.add_argument("recipe", help="a YAML file, or a name that `prunus recipes` lists")
    run.add_argument(
        "--accept-changes",
        action="store_true",
        help="go on from the folder's checkpoints though the recipe was changed; what was changed is noted",
    )
    run.add_argument("overrides", nargs="*", metavar="key=value", help="dotted path into the recipe, and a value")

    trace = add("trace", _trace, "Say which channels of a network can be removed, exactly or not at all, and why")
    _add_network(trace)
    trace.add_argument("--whole-heads", action="store_true", help="let attention lose whole heads, not parts of all")

    export = add(
        "export", _export, "Export a network, or the narrow network of a run, to ONNX and check that it is equal"
    )
    _add_network(export)
    export.add_argument("--output", type=Path, default=Path("network.onnx"), help="the file to write")
    export.add_argument("--backend", default="onnxruntime", help="the backend that checks the file")

    bench = add("bench", _bench, "Time ONNX files or networks against each other, interleaved")
    bench.add_argument(
        "networks", nargs="+", metavar="[name=]network", help="an ONNX file, module:callable or a run's folder"
    )
    bench.add_argument(
        "--shape", type=_shape, help="of one input, without the batch (default: the runs' own, or 3,224,224)"
    )
    bench.add_argument(
        "--backends", default="onnxruntime", help="comma-separated: onnxruntime, openvino, torch, tensorrt"
    )
    bench.add_argument("--threads", type=int, default=1)
    bench.add_argument("--repeats", type=int, default=50)
    bench.add_argument("--batch-size", type=int, default=1)

    report = add("report", _report, "Write report.html anew from a run's records, and print its table")
    report.add_argument("folder", type=Path, help="the folder of a run")

    add("recipes", _recipes, "List the recipes that come with Prunus, and those in ./recipes")
    return whole


def _add_network(parser: argparse.ArgumentParser) -> None:
    text = "module:callable that returns an nn.Module, or the folder of a run: its narrow network"
    parser.add_argument("network", help=text)
    parser.add_argument("--shape", type=_shape, help="of the example input (default: the run's, or 1,3,224,224)")
    text = "a keyword argument of the callable; give it once for each"
    parser.add_argument("--set", action="append", default=[], metavar="key=value", help=text)


def _run(options: argparse.Namespace) -> None:
    from prunus import pipeline, recipe, records, report
    from prunus.display import Display
    from prunus.train.distributed import is_first

    console = _console(quiet=not is_first())
    display = Display(console)
    chosen = recipe.load(pipeline.Recipe, find_recipe(options.recipe), options.overrides)
    watch = pipeline.Watch(stage=display.stage, epoch=display.epoch, step=display.step)
    with display.live():
        folder = pipeline.run(chosen, watch=watch, accept_changes=options.accept_changes)
    if not is_first():
        return
    console.print(report.table(records.read(folder)))
    console.print(f"report: {folder / 'report.html'}", soft_wrap=True)


def _trace(options: argparse.Namespace) -> None:
    import torch

    from prunus.graph import trace
    from prunus.named import named

    network = named(options.network, options.set, options.shape)
    groups = trace(network.model, torch.randn(network.input_shape), whole_heads=options.whole_heads)
    _console().print(groups.coverage())


def _export(options: argparse.Namespace) -> None:
    import torch

    from prunus.deploy import check_parity, export_onnx, require
    from prunus.named import named

    torch.manual_seed(0)
    network = named(options.network, options.set, options.shape)
    model, inputs = network.model.eval(), torch.randn(network.input_shape)
    path = export_onnx(model, inputs, options.output)
    record = check_parity(model, path, inputs, backend=options.backend)
    require(record)
    text = f"{path}: equal to PyTorch within {record.max_rel_diff:.1e} relative on {record.backend}"
    _console().print(text, soft_wrap=True)


def _bench(options: argparse.Namespace) -> None:
    from rich.table import Table

    from prunus.deploy import BenchmarkSettings, benchmark
    from prunus.named import named

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
            networks[name] = Path(source)
            continue
        found = named(source)
        networks[name] = found.model.eval()
        shapes.setdefault(found.input_shape[1:], name)
    if options.shape is None and len(shapes) > 1:
        told = ", ".join(f"{name} {shape}" for shape, name in shapes.items())
        raise RecipeError(f"the networks are for inputs of different shapes ({told}): give one for all with --shape")
    shape = options.shape or next(iter(shapes), (3, 224, 224))
    title = f"{settings.batch_size} x {' x '.join(map(str, shape))}, {settings.threads} thread(s)"
    table = Table("network", "backend", "median ms", "p95 ms", "peak MB", title=title)
    for record in benchmark(networks, shape, settings):
        peak = "n/a" if record.peak_memory_mb is None else f"{record.peak_memory_mb:.0f}"
        table.add_row(record.model, record.backend, f"{record.median_ms:.2f}", f"{record.p95_ms:.2f}", peak)
    _console().print(table)


def _report(options: argparse.Namespace) -> None:
    from prunus import records, report

    path = report.write(options.folder)
    _console().print(report.table(records.read(options.folder)))
    _console().print(f"report: {path}", soft_wrap=True)


def _recipes(options: argparse.Namespace) -> None:
    shipped = sorted(SHIPPED.glob("*.yaml"))
    known = {path.resolve() for path in shipped}
    own = [path for path in sorted(Path("recipes").glob("*.yaml")) if path.resolve() not in known]
    for name, path in [*((path.stem, path) for path in shipped), *((str(path), path) for path in own)]:
        first = path.read_text(encoding="utf-8").partition("\n")[0]
        _console().print(f"{name}  {first.removeprefix('#').strip()}", soft_wrap=True)


def _console(**settings: Any) -> Console:
    """Return where text is printed as it is: in a path, [b] is no markup and :x: no picture."""
    return Console(markup=False, emoji=False, highlight=False, **settings)


def find_recipe(recipe: str) -> Path:
    """Return the file that `recipe` names: a path, or the name of one that comes with Prunus."""
    shipped = SHIPPED / f"{recipe}.yaml"
    return shipped if not Path(recipe).is_file() and shipped.is_file() else Path(recipe)


def _shape(text: str) -> tuple[int, ...]:
    shape = tuple(int(size) for size in text.split(",") if size.isdecimal() and int(size) > 0)
    if len(shape) != len(text.split(",")):
        raise argparse.ArgumentTypeError(f"{text!r} is no shape: give sizes separated by commas, as in 1,3,224,224")
    return shape


if __name__ == "__main__":
    sys.exit(main())
