"""Read, cut and prove every network of the zoo: one table of all of them.

    python benchmarks/zoo.py                     all networks, results in benchmarks/results/zoo.{json,md}
    python benchmarks/zoo.py resnet50 swin_t     only these, to the screen
    python benchmarks/zoo.py --torch-pruning     the same networks with torch-pruning for comparison

For each network: `trace`, zero half of the exactly removable groups, `select`, `apply`, compare the outputs in evaluation
mode, float32. Each network has a process of its own with a time limit. Scales and shifts are shaken first, so
that what is initialised at zero or one hides nothing.
"""

import argparse
import json
import multiprocessing
import os
import platform
import resource
import sys
import time
import traceback
import warnings
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor, nn
from zoo_networks import Network, networks

import prunus
from prunus.budget.check import difference, zero_
from prunus.budget.select import removal, spare_layers
from prunus.graph.export import export

RESULTS = Path(__file__).with_name("results")
TOLERANCE = 1e-5  # of max |difference| / max |output|, float32
SEED = 0


def measure(network: Network, conn: Connection) -> None:
    """Run in a process of its own: send the row of `network`'s table."""
    try:
        conn.send(row(network))
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        reason = f"{type(error).__name__}: {str(error)[:300]} ({Path(place.filename).name}:{place.lineno})"
        conn.send({"status": "error", "reason": reason, "trace": traceback.format_exc()[-3000:]})
    finally:
        conn.close()


def row(network: Network) -> dict[str, Any]:
    """Return what is known of one network."""
    torch.manual_seed(SEED)
    model, inputs = network.build()
    model.eval()
    shake_(model)
    clock = Clock()
    export(model, inputs, None, training=False)
    export_s = clock.lap()
    groups = prunus.trace(model, inputs)
    trace_s = clock.lap()
    chosen = spare_layers(groups, half_of(groups.exact))
    zero_(model, groups, chosen)
    clock.lap()
    plan = prunus.select(model, groups) if bool(groups.exact.any()) else removal(groups, chosen)
    small = prunus.apply(plan, model)
    cut_s = clock.lap()
    absolute, relative = difference(model, small, inputs)
    same = same_shapes(model, small, inputs)
    share = conv_share(model, groups)
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
        "params": groups.params(),
        "params_after": params_after,
        "macs": groups.macs(),
        "macs_after": groups.macs(~chosen),
        "export_s": round(export_s, 3),
        "trace_s": round(trace_s, 3),
        "cut_s": round(cut_s, 3),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "notes": list(groups.notes),
    }


class Clock:
    """Seconds of processor time since the last lap: what else the machine does must not count."""

    def __init__(self) -> None:
        self.start = time.process_time()

    def lap(self) -> float:
        """Return the seconds since the last call."""
        before, self.start = self.start, time.process_time()
        return self.start - before


@torch.no_grad()
def shake_(model: nn.Module) -> None:
    """Move scales, shifts and running statistics off their initial values."""
    generator = torch.Generator().manual_seed(SEED)
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if not tensor.is_floating_point() or tensor.dim() != 1:
            continue
        noise = torch.randn(tensor.shape, generator=generator)
        if name.endswith("running_var"):
            tensor.mul_(1 + 0.3 * noise.abs())
        elif isinstance(tensor, nn.Parameter) or name.endswith("running_mean"):
            tensor.add_(0.1 * noise)


def half_of(exact: Tensor) -> Tensor:
    """Return a random half of the groups `exact`."""
    candidates = exact.nonzero().flatten()
    order = candidates[torch.randperm(candidates.numel(), generator=torch.Generator().manual_seed(SEED))]
    chosen = torch.zeros_like(exact)
    chosen[order[: candidates.numel() // 2]] = True
    return chosen


def conv_share(model: nn.Module, groups: prunus.graph.ChannelGroups) -> float | None:
    """Return which share of the parameters of convolutions' weights lies in exactly removable groups."""
    convs = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
    paths = {name: m for name, m in model.named_modules() if isinstance(m, convs)}
    kept: dict[str, float] = {}  # share of the weight that lies in no exact group
    exact = torch.cat([groups.exact, torch.zeros(1, dtype=torch.bool)])
    for slot in groups.slots:
        if slot.module in paths and slot.path.rpartition(".")[2].startswith(("weight", "original")):
            share = 1 - float(exact[slot.groups].float().mean())
            kept[slot.module] = kept.get(slot.module, 1.0) * share
    sizes = {name: sum(p.numel() for p in m.parameters()) for name, m in paths.items()}
    total = sum(sizes.values())
    return sum(size * (1 - kept.get(name, 1.0)) for name, size in sizes.items()) / total if total else None


def main_reason(groups: prunus.graph.ChannelGroups) -> str:
    """Return the reason most groups have."""
    counted: dict[str, int] = {}
    for texts in groups.reasons.values():
        counted[texts[0]] = counted.get(texts[0], 0) + 1
    return max(counted, key=lambda text: counted[text], default="no groups")


def same_shapes(model: nn.Module, small: nn.Module, inputs: tuple[Tensor, ...]) -> bool:
    """Whether both networks' outputs have the same shapes."""
    with torch.no_grad():
        first, second = (torch.utils._pytree.tree_leaves(m(*inputs)) for m in (model, small))
    return [getattr(a, "shape", None) for a in first] == [getattr(b, "shape", None) for b in second]


def isolated(network: Network, limit: float, work: Any = measure) -> dict[str, Any]:
    """Return the row of `network`, computed in a forked process that gets `limit` seconds."""
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
    """Let torch.export load what it loads once, before the clock runs and the processes fork."""
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(1), nn.Linear(16, 4))
    prunus.check_removal(net.eval(), torch.randn(1, 3, 4, 4))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--limit", type=float, default=240, help="seconds a network")
    parser.add_argument("--source", help="only this source")
    parser.add_argument("--out", type=Path, default=None, help="write the JSON here as it grows")
    settings = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    warm_up()
    rows = []
    for network in networks():
        if settings.names and network.name not in settings.names:
            continue
        if settings.source and network.source != settings.source:
            continue
        rows.append(isolated(network, settings.limit))
        print(line(rows[-1]), flush=True)
        if settings.names and "trace" in rows[-1]:
            print(rows[-1]["trace"])
        if settings.out:
            settings.out.write_text(json.dumps({"about": about(), "rows": rows}, indent=1))
    print(f"{sum(r['status'] == 'pass' for r in rows)} of {len(rows)} pass")


def line(row: dict[str, Any]) -> str:
    """Return one line for the screen."""
    if "groups" not in row:
        return f"{row['name']:36} {row['status']:8} {row['reason'][:150]}"
    share = "   -" if row["conv_share"] is None else f"{row['conv_share']:4.0%}"
    times = f"export {row['export_s']:5.2f} trace {row['trace_s']:5.2f} cut {row['cut_s']:5.2f} s"
    counts = f"{row['exact']:6} exact {row['approximate']:6} approx {row['refused']:6} refused"
    return f"{row['name']:36} {row['status']:8} {row['max_rel_diff']:8.1e} conv {share} {counts} {times} {row['reason'][:90]}"


def about() -> dict[str, Any]:
    """Return where and how the table was made."""
    return {
        "command": " ".join(["python", *sys.argv]),
        "seed": SEED,
        "tolerance": TOLERANCE,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} thread",
        "date": time.strftime("%Y-%m-%d"),
    }


if __name__ == "__main__":
    main()
