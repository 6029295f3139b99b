"""Trace, cut and verify every network of the zoo, and write one table.

    python benchmarks/zoo.py                     all networks, into benchmarks/results/zoo.json and zoo.md
    python benchmarks/zoo.py --resume            the networks that are missing in the results
    python benchmarks/zoo.py resnet50 swin_t     only these, to the screen
    python benchmarks/zoo.py --torch-pruning     the same with torch-pruning, for comparison

For each network: `trace`, zero half of the exactly removable groups, `select`, `apply`, compare the outputs in
evaluation mode, float32. Each network has its own process with a time limit. Scales and shifts are perturbed first, so
that initial values of zero or one do not hide errors. Times are processor seconds of the process; "export" is
torch.export of the same network in evaluation mode, in its own process. Memory is the peak of a process beyond its
memory with the model built, for Prunus and for the export.
"""

import argparse
import copy
import functools
import gc
import importlib
import importlib.metadata
import json
import multiprocessing
import os
import resource
import subprocess
import time
import traceback
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from result import header
from torch import Tensor, nn
from zoo_networks import Network, networks
from zoo_table import line, totals, write

import prunus
from prunus.modules.given import arguments
from prunus.penalties.zeros import zero_
from prunus.program import read
from prunus.surgery.removal import removal, spare_layers
from prunus.verify import difference

RESULTS = Path(__file__).with_name("results")
TOLERANCE = 1e-5  # on max |difference| / max |output|, float32
SEED = 0
NO_CNN = {"aten::layer_norm", "aten::softmax", "aten::scaled_dot_product_attention"}  # a CNN has none of them


def measure(network: Network, conn: Connection) -> None:
    """Send the table row of `network`; runs in its own process."""
    try:
        conn.send(row(network))
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        reason = f"{type(error).__name__}: {str(error)[:300]} ({Path(place.filename).name}:{place.lineno})"
        conn.send({"status": "error", "reason": reason, "trace": traceback.format_exc()[-3000:]})
    finally:
        conn.close()


def row(network: Network) -> dict[str, Any]:
    """Return the row of one network."""
    torch.manual_seed(SEED)
    model, inputs = network.build()
    model.eval()
    shake_(model)
    base_mb = peak_mb()
    clock = Clock()
    groups = prunus.trace(model, inputs)
    trace_s = clock.lap()
    chosen = spare_layers(groups, half_of(groups.exact))
    zero_(model, groups, chosen)
    clock.lap()
    plan = prunus.select(model, groups) if bool(groups.exact.any()) else removal(groups, chosen)
    small = prunus.apply(plan, model)
    cut_s, held_mb = clock.lap(), peak_mb() - base_mb
    absolute, relative = difference(model, small, inputs)
    same = same_shapes(model, small, inputs)
    share, conv_params = conv_share(model, groups)
    operations = read(model, arguments(inputs)).operations
    exported = in_process(functools.partial(export, model, arguments(inputs)))
    params_after = sum(p.numel() for p in small.parameters())
    passed = relative <= TOLERANCE and same
    reason = "" if passed else f"outputs differ by {relative:.1e} relative"
    if not bool(groups.exact.any()):
        passed, reason = False, "nothing can be removed exactly: " + main_reason(groups)
    elif params_after != groups.params(~chosen):
        passed, reason = False, f"{params_after} parameters, predicted {groups.params(~chosen)}"
    return {
        "status": "pass" if passed else "fail",
        "reason": reason,
        "max_rel_diff": relative,
        "max_abs_diff": absolute,
        "groups": len(groups),
        "exact": int(groups.exact.sum()),
        "approximate": int((groups.removable & ~groups.exact).sum()),
        "refused": int(groups.refused.sum()),
        "conv_share": share,
        "conv_params": conv_params,
        "params": groups.params(),
        "params_after": params_after,
        "macs": groups.macs(),
        "macs_after": groups.macs(~chosen),
        "cnn": not {operation.name for operation in operations} & NO_CNN,
        "nodes": len(operations),
        "export_s": round(exported["seconds"], 3),
        "trace_s": round(trace_s, 3),
        "cut_s": round(cut_s, 3),
        "export_mb": exported["held_mb"] - base_mb,
        "peak_mb": held_mb,
        "model_mb": sum(t.nbytes for t in model.state_dict().values()) // 2**20,
        "notes": list(groups.notes),
    }


def peak_mb() -> int:
    """Return the peak memory of this process, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def export(model: nn.Module, inputs: tuple[Any, ...]) -> dict[str, float]:
    """Return the seconds of torch.export, and the peak memory of the process."""
    clock = Clock()
    torch.export.export(model, inputs)
    return {"seconds": clock.lap(), "held_mb": peak_mb()}


def in_process(work: Callable[[], dict[str, float]]) -> dict[str, float]:
    """Return the result of `work` in a forked process, so that its memory is measured separately."""
    context = multiprocessing.get_context("fork")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=lambda: send.send(work()))
    process.start()
    send.close()
    result: dict[str, float] = receive.recv()
    process.join()
    return result


class Clock:
    """Seconds of processor time since the last lap, which do not include other work on the machine."""

    def __init__(self) -> None:
        self.start = time.process_time()

    def lap(self) -> float:
        """Return the seconds since the last call."""
        before, self.start = self.start, time.process_time()
        return self.start - before


@torch.no_grad()
def shake_(model: nn.Module) -> None:
    """Move scales, shifts, running statistics and zero-initialised weights off their initial values."""
    generator = torch.Generator().manual_seed(SEED)
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        long = tensor.numel() == max(tensor.shape, default=0)  # has one dimension above 1
        learnt = isinstance(tensor, nn.Parameter)
        if not tensor.is_floating_point() or not (long or (learnt and not bool(tensor.any()))):
            continue
        noise = torch.randn(tensor.shape, generator=generator)
        if name.endswith("running_var"):
            tensor.mul_(1 + 0.3 * noise.abs())
        elif learnt or name.endswith("running_mean"):
            tensor.add_(0.1 * noise)


def half_of(exact: Tensor) -> Tensor:
    """Return a random half of the groups in `exact`."""
    candidates = exact.nonzero().flatten()
    order = candidates[torch.randperm(candidates.numel(), generator=torch.Generator().manual_seed(SEED))]
    chosen = torch.zeros_like(exact)
    chosen[order[: candidates.numel() // 2]] = True
    return chosen


def conv_share(model: nn.Module, groups: prunus.graph.ChannelGroups) -> tuple[float | None, int]:
    """Return the share of the convolutions' parameters in exactly removable groups, and their total number."""
    convs = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
    paths = {name: m for name, m in model.named_modules() if isinstance(m, convs)}
    kept: dict[str, float] = {}  # share of the weight outside exact groups
    exact = torch.cat([groups.exact, torch.zeros(1, dtype=torch.bool)])
    for slot in groups.slots:
        if slot.module in paths and slot.path.rpartition(".")[2].startswith(("weight", "original")):
            share = 1 - float(exact[slot.groups].float().mean())
            kept[slot.module] = kept.get(slot.module, 1.0) * share
    sizes = {name: sum(p.numel() for p in m.parameters()) for name, m in paths.items()}
    total = sum(sizes.values())
    exactly = sum(size * (1 - kept.get(name, 1.0)) for name, size in sizes.items())
    return (exactly / total if total else None), total


def main_reason(groups: prunus.graph.ChannelGroups) -> str:
    """Return the most frequent reason among the groups."""
    told = max(groups.told, key=lambda reason: (not reason.refused, reason.groups.numel()), default=None)
    return "no groups" if told is None else told.text


def same_shapes(model: nn.Module, small: nn.Module, inputs: tuple[Tensor, ...]) -> bool:
    """Whether both networks' outputs have the same shapes."""
    with torch.no_grad():
        first, second = (torch.utils._pytree.tree_leaves(m(*inputs)) for m in (model, small))
    return [getattr(a, "shape", None) for a in first] == [getattr(b, "shape", None) for b in second]


def measure_other(network: Network, conn: Connection) -> None:
    """Cut half of the channels of `network` with torch-pruning's documented defaults; send the row."""
    try:
        conn.send(other_row(network))
    except Exception as error:
        conn.send({"status": "error", "reason": f"{type(error).__name__}: {str(error)[:200]}"})
    finally:
        conn.close()


def other_row(network: Network) -> dict[str, Any]:
    """Return whether the network runs after torch-pruning's cut, with unchanged output shapes."""
    import torch_pruning

    torch.manual_seed(SEED)
    model, inputs = network.build()
    model.eval()
    wide = copy.deepcopy(model)
    before = sum(p.numel() for p in model.parameters())
    last = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)][-1]
    clock = Clock()
    pruner = torch_pruning.pruner.MagnitudePruner(
        model,
        inputs,
        importance=torch_pruning.importance.MagnitudeImportance(p=2),
        pruning_ratio=0.5,
        ignored_layers=[last],
    )
    pruner.step()
    seconds = clock.lap()
    after = sum(p.numel() for p in model.parameters())
    same = same_shapes(wide, model, inputs)
    reason = "" if same and after < before else "other outputs" if not same else "nothing was cut"
    status = "fail" if reason else "pass"
    return {"status": status, "reason": reason, "seconds": round(seconds, 3), "params": before, "params_after": after}


def isolated(network: Network, limit: float, work: Any = measure) -> dict[str, Any]:
    """Return the row of `network`, computed in a forked process with a limit of `limit` seconds."""
    context = multiprocessing.get_context("fork")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(network, send))
    process.start()
    send.close()
    try:
        result = receive.recv() if receive.poll(limit) else {"status": "timeout", "reason": f"no end in {limit:.0f} s"}
    except EOFError:
        result = {"status": "error", "reason": "the process died (memory?)"}
    process.terminate()
    process.join()
    return {"name": network.name, "source": network.source, **result}


def warm_up() -> None:
    """Trigger torch's lazy loading before the timing starts and the processes fork."""
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(1), nn.Linear(16, 4))
    prunus.check_removal(net.eval(), torch.randn(1, 3, 4, 4))
    torch.export.export(net, (torch.randn(1, 3, 4, 4),))
    gc.freeze()  # keeps the collector from scanning the loaded objects again in every process


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--limit", type=float, default=240, help="seconds a network")
    parser.add_argument("--source", help="only this source")
    parser.add_argument("--resume", action="store_true", help="keep the rows that the results already have")
    parser.add_argument("--torch-pruning", action="store_true", help="with torch-pruning's documented defaults")
    settings = parser.parse_args()
    if settings.torch_pruning:
        importlib.import_module("torch_pruning")  # fails early if it is not installed
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    warm_up()
    kind = "zoo_torch_pruning" if settings.torch_pruning else "zoo"
    path = RESULTS / f"{kind}.json"
    rows = json.loads(path.read_text())["rows"] if settings.resume and path.is_file() else []
    known = {(row["source"], row["name"]) for row in rows}
    zoo = networks()
    order = {(network.source, network.name): number for number, network in enumerate(zoo)}
    for network in zoo:
        if (
            (network.source, network.name) in known
            or (settings.names and network.name not in settings.names)
            or (settings.source and network.source != settings.source)
        ):
            continue
        new = isolated(network, settings.limit, measure_other if settings.torch_pruning else measure)
        rows.append({**new, "commit": commit()})
        print(line(new), flush=True)
        if settings.names:
            print(new.get("trace", ""))
        rows.sort(key=lambda row: order[row["source"], row["name"]])
        if not settings.names or settings.resume:
            write(path, rows, about(settings.limit))
    print(totals(rows))


@functools.cache
def commit() -> str:
    """Return the commit of the running code."""
    return subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], cwd=RESULTS, text=True).strip()


def about(limit: float) -> dict[str, Any]:
    """Return the hardware, versions and settings of the table."""
    first = header()
    versions = {**first["versions"], "timm": importlib.metadata.version("timm")}
    return {
        "date": first["date"],
        "command": first["command"],
        "seed": SEED,
        "tolerance": TOLERANCE,
        "limit": f"{limit:.0f} s a network",
        **{name: versions[name] for name in ("python", "prunus", "torch", "torchvision", "timm")},
        **first["hardware"],
        "threads": torch.get_num_threads(),
    }


if __name__ == "__main__":
    main()
