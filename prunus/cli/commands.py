"""The subcommands, as functions of the parsed options; their docstrings are the help text."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prunus import trust
from prunus.cli.process import import_from_current_folder
from prunus.decoding import SETTINGS, DecodingError, read_text
from prunus.errors import BudgetError, GateError
from prunus.interrupt import check
from prunus.terminal import Terminal

SHIPPED = Path(__file__).parents[1] / "recipes"


def run(options: argparse.Namespace) -> None:
    """Run a recipe: train, shrink to the budget, export, measure, report."""
    _run(find_recipe(options.recipe), options.overrides, accept_changes=options.accept_changes)


def shrink(options: argparse.Namespace) -> None:
    """Shrink a network that is already trained to a budget, in a short training on the data of a recipe."""
    from prunus.cli.shrink_recipe import overrides_of

    path = find_recipe(options.recipe)
    _run(path, overrides_of(options, path), accept_changes=options.accept_changes)


def sweep(options: argparse.Namespace) -> None:
    """Run a recipe at several budgets, with as many workers as there are, and show accuracy against milliseconds."""
    from prunus import pipeline
    from prunus.display import Display
    from prunus.pipeline.sweep import sweep

    import_from_current_folder()
    console = Terminal()
    display = Display(console)
    watch = pipeline.Watch(stage=display.stage, epoch=display.epoch, step=display.step)
    budgets = [item for item in options.budgets if isinstance(item, float)]
    overrides = [*options.overrides, *(item for item in options.budgets if isinstance(item, str))]
    with display.live():
        found = sweep(find_recipe(options.recipe), budgets, overrides, bound=options.bound, watch=watch)
    check()
    for budget, reason in found.failed.items():
        console.print(f"{budget:g} cannot be met: {reason}", soft_wrap=True)
    if found.elsewhere:
        at = ", ".join(f"{budget:g}" for budget in found.elsewhere)
        console.print(
            f"{found.folder}: other workers are working on {at}; the last to finish writes the report", soft_wrap=True
        )
    if found.report is not None:
        console.print(f"report: {found.report}", soft_wrap=True)
    if found.failed and not found.done:
        raise BudgetError("none of the budgets can be met")


def _run(path: Path, overrides: Sequence[str], *, accept_changes: bool) -> None:
    from prunus import pipeline, recipe, records, report
    from prunus.display import Display
    from prunus.train.distributed import is_first

    import_from_current_folder()
    console = Terminal(quiet=not is_first())
    display = Display(console)
    chosen = recipe.load(pipeline.Recipe, path, overrides)
    watch = pipeline.Watch(stage=display.stage, epoch=display.epoch, step=display.step)
    with display.live():
        folder = pipeline.run(chosen, watch=watch, accept_changes=accept_changes)
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


def quantize(options: argparse.Namespace) -> None:
    """Write an ONNX file in INT8, calibrated on training images; refuse it where it loses more than allowed."""
    from prunus import pipeline, recipe
    from prunus.deploy import Quantize
    from prunus.deploy.quantization import quantizer
    from prunus.pipeline.quantization import Quantizing, require

    settings = Quantize(backends=(options.backend,), samples=options.samples, max_drop=options.max_drop)
    suffix = quantizer(options.backend).int8_suffix
    chosen = recipe.load(pipeline.Recipe, _recipe_of(options), options.overrides)
    seed = chosen.seed if options.seed is None else options.seed
    shared = Quantizing(data=chosen.data, task=chosen.task.bind(chosen.data), train=chosen.train, seed=seed)
    output = options.output or options.network.with_name(f"{options.network.stem}-int8-{options.backend}{suffix}")
    found = shared.quantized(options.network, output, settings, options.backend, options.network.stem)
    require(found)
    text = (
        f"{output}: {100 * found.int8:.2f} % {found.metric} on the {found.split} split ({100 * found.float32:.2f} % in "
        f"float32), {found.median_ms_int8:.3f} ms ({found.median_ms_float32:.3f} ms), {found.bytes_int8 / 1e6:.3f} MB "
        f"({found.bytes_float32 / 1e6:.3f} MB)"
    )
    Terminal().print(text, soft_wrap=True)


def _recipe_of(options: argparse.Namespace) -> Path:
    """Return the recipe file of `--data`: a recipe, or the one in a run's folder, which is code and must be trusted."""
    import_from_current_folder()
    if not options.data.is_dir():
        return find_recipe(str(options.data))
    trust.require(options.data, trusted=options.trust)
    return Path(options.data / "recipe.yaml")


def bench(options: argparse.Namespace) -> None:
    """Time ONNX files or networks against each other, interleaved; a row for each resolution and backend."""
    from prunus.cli.bench import bench

    if any("." in name for name in (options.backends, *options.target)):
        import_from_current_folder()
    bench(options, lambda source: _named(options, source))


def compare(options: argparse.Namespace) -> None:
    """Compare two networks slice by slice; exit status 1 where a slice falls by more than allowed, beyond doubt."""
    from prunus import pipeline, recipe
    from prunus.gate import Gate, compare
    from prunus.gate.told import table, told
    from prunus.modules.modes import in_evaluation

    settings = Gate(
        max_drop=options.max_drop,
        per=options.per,
        min_samples=options.min_samples,
        tags=options.tags,
    )
    chosen = recipe.load(pipeline.Recipe, _recipe_of(options), options.overrides)
    wide, narrow = (
        name if name.endswith(".onnx") else in_evaluation(_named(options, name).model)
        for name in (options.wide, options.narrow)
    )
    found = compare(
        wide, narrow, chosen.data, task=chosen.task, settings=settings, split=options.split, train=chosen.train
    )
    Terminal().print(table(found, settings))
    if not found.passed:
        raise GateError(told(found, settings))
    Terminal().print(told(found, settings), soft_wrap=True)


def target(options: argparse.Namespace) -> None:
    """Let another machine, with the runtime alone, be a target: write a kit for it, read what it measured."""
    from prunus.cli import target

    if options.action == "kit":
        target.kit(options, _named(options, options.network, options.set, options.shape))
    else:
        target.read(options)


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
    """Return the network called `name`. The folder of a run is code: it must be the user's own, or trusted."""
    from prunus.named import named

    if Path(name).is_dir():
        trust.require(Path(name), trusted=options.trust)
    import_from_current_folder()
    return named(name, settings, shape)


def find_recipe(recipe: str) -> Path:
    """Return the file of `recipe`: a path, or the name of a recipe that comes with Prunus."""
    shipped = SHIPPED / f"{recipe}.yaml"
    return shipped if not Path(recipe).is_file() and shipped.is_file() else Path(recipe)
