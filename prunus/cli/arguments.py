"""The parser of the command line, with a subcommand for each function of `commands`, whose docstring is its help."""

import argparse
from collections.abc import Callable
from pathlib import Path

import prunus
from prunus.cli import commands
from prunus.cli.help import DESCRIPTION, EPILOG, EXAMPLES


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    whole = argparse.ArgumentParser(
        prog="prunus", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    subcommands = whole.add_subparsers(required=True, metavar="COMMAND")

    def add(function: Callable[[argparse.Namespace], None]) -> argparse.ArgumentParser:
        name, text = function.__name__, (function.__doc__ or "").removesuffix(".")
        layout = argparse.RawDescriptionHelpFormatter
        command = subcommands.add_parser(
            name, help=text, description=f"{text}.", epilog=EXAMPLES[name], formatter_class=layout
        )
        command.set_defaults(command=function)
        return command

    whole.add_argument("--version", action="version", version=f"prunus {prunus.__version__}")
    run = add(commands.run)
    run.add_argument("recipe", help="a YAML file, or a name that `prunus recipes` lists")
    run.add_argument(
        "--accept-changes",
        action="store_true",
        help="resume from the folder's checkpoints although the recipe changed; the changes are noted",
    )
    run.add_argument("overrides", nargs="*", metavar="key=value", help="dotted path into the recipe, and a value")

    _add_shrink(add(commands.shrink))
    _add_sweep(add(commands.sweep))
    trace = add(commands.trace)
    _add_network(trace)
    trace.add_argument(
        "--whole-heads", action="store_true", help="remove whole heads of attention, not parts of every head"
    )

    export = add(commands.export)
    _add_network(export)
    export.add_argument("--output", type=Path, default=Path("network.onnx"), help="the file to write")
    export.add_argument("--backend", default="onnxruntime", help="the backend that checks the file")

    _add_quantize(add(commands.quantize))
    _add_bench(add(commands.bench))
    _add_compare(add(commands.compare))
    _add_target(add(commands.target))
    report = add(commands.report)
    report.add_argument("folder", type=Path, help="the folder of a run")

    add(commands.recipes)
    return whole


def _add_sweep(sweep: argparse.ArgumentParser) -> None:
    sweep.add_argument("recipe", help="a YAML file, or a name that `prunus recipes` lists")
    sweep.add_argument("--budgets", type=_budget, nargs="+", required=True, help="a number up to 1 is a share")
    text = "what the budgets bound: macs, params, latency, latency_ms (default: what the recipe's budget bounds)"
    sweep.add_argument("--bound", help=text)
    sweep.add_argument("overrides", nargs="*", metavar="key=value", help="dotted path into the recipe, and a value")


def _add_shrink(shrink: argparse.ArgumentParser) -> None:
    shrink.add_argument("network", metavar="module:callable", help="builds the network; it is given num_classes=")
    shrink.add_argument("--weights", required=True, help="safetensors, or a state dict of torch.save")
    text = "the budget: macs=0.4, params=1000000, latency=0.5, latency_ms=8; a number up to 1 is a share"
    shrink.add_argument("--budget", required=True, action="append", metavar="key=value", help=text)
    shrink.add_argument("--recipe", required=True, help="a YAML file, or a name that `prunus recipes` lists")
    text = "a keyword argument of the callable; repeat for each"
    shrink.add_argument("--set", action="append", default=[], metavar="key=value", help=text)
    shrink.add_argument("--accept-changes", action="store_true", help="as for `prunus run`")
    shrink.add_argument("overrides", nargs="*", metavar="key=value", help="dotted path into the recipe, and a value")


def _add_bench(bench: argparse.ArgumentParser) -> None:
    bench.add_argument(
        "networks", nargs="+", metavar="[name=]network", help="an ONNX file, module:callable or a run's folder"
    )
    bench.add_argument(
        "--shape", type=_shape, help="of one input, without the batch (default: the files' and runs' own, or 3,224,224)"
    )
    bench.add_argument(
        "--backends", default="onnxruntime", help="comma-separated: onnxruntime, openvino, torch, tensorrt"
    )
    text = "in place of --backends, --threads and --batch-size, as in openvino,threads=2,batch=1,resolution=512x1024; "
    text += "repeat for each"
    bench.add_argument("--target", action="append", default=[], help=text)
    bench.add_argument(
        "--resolutions",
        type=_resolutions,
        default=(),
        help="comma-separated heights and widths in place of those of --shape: 256x512,512x1024",
    )
    bench.add_argument("--layers", action="store_true", help="show where the time goes, by the backend's own profile")
    text = "also write the table to a file, .csv or .json; repeat for each"
    bench.add_argument("--output", type=Path, action="append", default=[], help=text)
    _add_trust(bench)
    bench.add_argument("--threads", type=int, default=1, help="CPU threads that each network gets (default: 1)")
    bench.add_argument("--repeats", type=int, default=50, help="timed runs of each network (default: 50)")
    bench.add_argument("--batch-size", type=int, default=1, help="inputs per run (default: 1)")


def _add_quantize(quantize: argparse.ArgumentParser) -> None:
    quantize.add_argument("network", type=Path, help="an ONNX file in float32")
    quantize.add_argument("--data", type=Path, required=True, help="a recipe or a run's folder: its data and its task")
    text = "the backend that will run it: onnxruntime (default), openvino"
    quantize.add_argument("--backend", default="onnxruntime", help=text)
    quantize.add_argument(
        "--samples", type=int, default=256, help="number of training images to calibrate with (default: 256)"
    )
    quantize.add_argument("--seed", type=int, help="seed for drawing these images (default: the recipe's)")
    text = "percentage points of the metric that it may lose (default: 1)"
    quantize.add_argument("--max-drop", type=float, default=1.0, help=text)
    quantize.add_argument("--output", type=Path, help="the file to write (default: beside the network)")
    quantize.add_argument("overrides", nargs="*", metavar="key=value", help="dotted path into the recipe, and a value")
    _add_trust(quantize)


def _add_compare(compare: argparse.ArgumentParser) -> None:
    compare.add_argument("wide", help="an ONNX file, module:callable or a run's folder")
    compare.add_argument("narrow", help="the network to compare with it")
    compare.add_argument("--data", type=Path, required=True, help="a recipe or a run's folder: its data and its task")
    compare.add_argument(
        "--max-drop", type=float, default=0.5, help="percentage points that a slice may fall (default: 0.5)"
    )
    text = "kinds of slices, separated by commas (default: all that the data have)"
    compare.add_argument("--per", default="class,condition,size,distance,class in condition", help=text)
    text = "samples that a slice needs to be judged (default: 30)"
    compare.add_argument("--min-samples", type=int, default=30, help=text)
    compare.add_argument("--tags", type=Path, help="a CSV file of the images' conditions: file,tag,tag,...")
    splits = ("train", "validation", "test")
    compare.add_argument("--split", default="test", choices=splits, help="of the data (default: test)")
    compare.add_argument("overrides", nargs="*", metavar="key=value", help="dotted path into the recipe, and a value")
    _add_trust(compare)


def _add_target(target: argparse.ArgumentParser) -> None:
    actions = target.add_subparsers(required=True, metavar="ACTION", dest="action")
    text = "write a folder that another machine measures with only the runtime and numpy"
    kit = actions.add_parser("kit", help=text, description=f"{text.capitalize()}.")
    kit.add_argument("folder", type=Path, help="the kit's folder, which is created")
    _add_network(kit)
    kit.add_argument("--target", default="onnxruntime", help="how it runs there, as in onnxruntime,threads=4,batch=1")
    text = "make a target's table from the measurements"
    read = actions.add_parser("read", help=text, description=f"{text.capitalize()}.")
    read.add_argument("folder", type=Path, help="the kit's folder, with measured.json in it")
    read.add_argument("--output", type=Path, required=True, help="the table to write, a JSON file")


def _add_network(parser: argparse.ArgumentParser) -> None:
    text = "module:callable that returns an nn.Module, or the folder of a run, whose recipe names the code that is run"
    parser.add_argument("network", help=text)
    parser.add_argument("--shape", type=_shape, help="of the example input (default: the run's, or 1,3,224,224)")
    _add_trust(parser)
    text = "a keyword argument of the callable; repeat for each"
    parser.add_argument("--set", action="append", default=[], metavar="key=value", help=text)


def _add_trust(parser: argparse.ArgumentParser) -> None:
    text = "run the code that the recipe in a run's folder names, although the run is not yours"
    parser.add_argument("--trust", action="store_true", help=text)


def _budget(text: str) -> float | str:
    """Return a budget as a number; an override of the recipe, which argparse passes here too, is returned unchanged."""
    if "=" in text:
        return text
    try:
        return float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number: give budgets as in 0.8 0.6 0.4 0.2") from error


def _resolutions(text: str) -> tuple[tuple[int, int], ...]:
    found = []
    for item in text.split(","):
        height, _, width = item.partition("x")
        if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
            raise argparse.ArgumentTypeError(f"{item!r} is not a resolution: give height x width, as in 512x1024")
        found.append((int(height), int(width)))
    return tuple(found)


def _shape(text: str) -> tuple[int, ...]:
    shape = tuple(int(size) for size in text.split(",") if size.isdecimal() and int(size) > 0)
    if len(shape) != len(text.split(",")):
        raise argparse.ArgumentTypeError(f"{text!r} is not a shape: give sizes separated by commas, as in 1,3,224,224")
    return shape
