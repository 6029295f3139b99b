"""Claim: latency is predicted from measured units, and budgets in milliseconds are met with the least importance lost.

    python benchmarks/latency_model.py [--networks ERFNet ...] [--backends onnxruntime ...] [--threads 1]

For each network and backend, the latency model is measured (`prunus.TargetMeter`; the tables of units are kept in
--tables and reused). Then 30 narrow versions, each layer narrowed by its own random share from 0 to 80 %, are predicted
and measured, each in turn with the wide network; for comparison, a straight line in multiply-adds is fitted to the same
networks as the model. Then budgets of 70, 50 and 30 % are solved, and the results are timed in turn with the wide
network and with two networks selected by multiply-adds: one within the same milliseconds, and one of the same
multiply-adds. Importances are relative norms; approximate removals are allowed, since accuracy is not evaluated.

Every measurement is appended to results/latency_model.jsonl, so an interrupted run resumes; --again drops the
measurements of the named networks and backends. The summary is results/latency_model.json, its picture
latency_model.svg.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from latency_picture import picture
from result import RESULTS, write_result
from torch import Tensor, nn

import prunus
from prunus.budget.greedy_selection import floors, greedy_selection
from prunus.budget.latency_search import LatencySearch
from prunus.budget.milliseconds import solve_milliseconds
from prunus.budget.select import relative_norms
from prunus.compat import torchvision
from prunus.deploy import BenchmarkSettings, benchmark
from prunus.errors import BudgetError
from prunus.models.erfnet import ERFNet
from prunus.surgery.removal import removal, spare_layers

ROWS = RESULTS / "latency_model.jsonl"
VERSIONS, MOST_REMOVED = 30, 0.8
SHARES = (0.7, 0.5, 0.3)
Row = dict[str, Any]


def deit_tiny() -> nn.Module:
    import timm

    model: nn.Module = timm.create_model("deit_tiny_patch16_224")
    return model


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "ERFNet": (lambda: ERFNet(num_classes=20), (1, 3, 128, 256)),
    "ResNet-18": (torchvision.models.resnet18, (1, 3, 224, 224)),
    "ResNet-50": (torchvision.models.resnet50, (1, 3, 224, 224)),
    "MobileNetV2": (torchvision.models.mobilenet_v2, (1, 3, 224, 224)),
    "DeiT-tiny": (deit_tiny, (1, 3, 224, 224)),
}


class Subject:
    """One network on one backend."""

    def __init__(self, name: str, backend: str, threads: int, tables: Path) -> None:
        build, shape = NETWORKS[name]
        torch.manual_seed(0)
        self.name, self.backend, self.threads = name, backend, threads
        self.model, self.images = build().eval(), torch.randn(shape)
        traced = prunus.trace(self.model, self.images)
        self.groups = prunus.Budget(latency=1.0, approximate=True).candidates(traced)  # includes DeiT's width
        self.importance = relative_norms(self.model, self.groups)
        target = prunus.Target(backend=backend, threads=threads)
        self.meter = prunus.TargetMeter(target, self.images, table=tables / f"{backend}-{threads}.json", repeats=30)

    def measure(self, gone: Tensor) -> float:
        """Return the milliseconds without the groups `gone`."""
        return self.meter(prunus.apply(removal(self.groups, gone), self.model))

    def deployed(self, gone: Tensor) -> nn.Module:
        """Return the network without the groups `gone`, BatchNorm folded."""
        small = prunus.apply(removal(self.groups, gone), self.model).eval()
        return prunus.apply(prunus.fuse(small, self.images), small).eval()

    def drawn(self, number: int) -> Tensor:
        """Return the groups that are removed in version `number`."""
        generator = torch.Generator().manual_seed(number)
        share = MOST_REMOVED * torch.rand(len(self.groups.layer_names) + 1, generator=generator)
        chosen = torch.rand(len(self.groups), generator=generator) < share[self.groups.layers]
        return spare_layers(self.groups, self.groups.exact & chosen)


def known(name: str, backend: str) -> list[Row]:
    if not ROWS.exists():
        return []
    rows = [json.loads(line) for line in ROWS.read_text(encoding="utf-8").splitlines()]
    return [row for row in rows if row["network"] == name and row["backend"] == backend]


def note(row: Row) -> None:
    with ROWS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    print(row, flush=True)


def measure_all(subject: Subject) -> None:
    """Write the missing measurements of one network on one backend."""
    about = {"network": subject.name, "backend": subject.backend}
    rows = known(subject.name, subject.backend)
    began, fitted_to = time.perf_counter(), list[tuple[int, float]]()

    def measure(gone: Tensor) -> float:
        fitted_to.append((subject.groups.macs(~gone), subject.measure(gone)))
        return fitted_to[-1][1]

    model = subject.meter.latency_model(subject.model, subject.groups, measure)
    if not any(row["kind"] == "model" for row in rows):
        note({**about, "kind": "model", "seconds": time.perf_counter() - began, "entries": len(subject.meter.table)})
    line = np.polyfit(*zip(*fitted_to, strict=True), deg=1)
    done = {row["number"] for row in rows if row["kind"] == "random"}
    for number in sorted(set(range(VERSIONS)) - done):
        gone = subject.drawn(number)
        macs = subject.groups.macs(~gone)
        row = {"predicted": model.predicted(~gone), "by_macs": float(np.polyval(line, macs))}
        note({**about, "kind": "random", "number": number, "macs": macs, **row, "measured": subject.measure(gone)})
    done = {row["share"] for row in rows if row["kind"] == "budget"}
    for share in sorted(set(SHARES) - done, reverse=True):
        note({**about, "kind": "budget", "share": share, **budget_row(subject, model, share)})


def budget_row(subject: Subject, model: Any, share: float) -> Row:
    """Return the result of a budget of `share` of the latency, with that of selection by multiply-adds."""
    groups, importance, budget = subject.groups, subject.importance, prunus.Budget(latency=share)
    floor, nothing = floors(groups, budget), torch.zeros(len(subject.groups), dtype=torch.bool)
    limit, measuring = share * subject.measure(nothing), list[float]()

    def measure(gone: Tensor) -> float:
        began = time.perf_counter()
        taken = subject.measure(gone)
        measuring.append(time.perf_counter() - began)
        return taken

    began = time.perf_counter()
    try:
        found = solve_milliseconds(groups, importance, model, measure, limit, floor)
    except BudgetError as error:
        return {"refused": str(error)}
    seconds, solved = time.perf_counter() - began, found.best.solution.removed
    solving = (seconds - sum(measuring)) / len(found.rounds)
    macs = groups.macs(~solved)
    networks = {
        "wide": nothing,
        "solved": solved,
        "same_macs": greedy_selection(groups, importance, {"macs": macs}, floor),
    }
    search = LatencySearch(
        model=subject.model, groups=groups, importance=importance, meter=subject.meter, limit_ms=limit, floor=floor
    )
    by_macs = search.largest()
    networks["by_macs"] = greedy_selection(groups, importance, {"macs": float(by_macs.macs)}, floor)
    settings = BenchmarkSettings(backends=(subject.backend,), threads=subject.threads, repeats=50, measure_memory=False)
    deployed = {name: subject.deployed(gone) for name, gone in networks.items()}
    timed = {r.model: r.median_ms for r in benchmark(deployed, tuple(subject.images.shape[1:]), settings)}
    total = float(importance[groups.exact].sum())
    figures = {
        name: {
            "latency": timed[name] / timed["wide"],
            "macs": groups.macs(~gone) / groups.macs(),
            "kept": 1 - float(importance[gone].sum()) / total,
        }
        for name, gone in networks.items()
    }
    rounds = [[r.predicted_ms / limit, r.measured_ms / limit] for r in found.rounds]
    return {
        "met": found.met,
        "rounds": rounds,
        "gap": found.best.solution.gap,
        "seconds": seconds,
        "solving": solving,
        **figures,
    }


def summary(name: str, backend: str) -> Row | None:
    rows = known(name, backend)
    random = [row for row in rows if row["kind"] == "random"]
    if not random:
        return None
    measured = np.array([row["measured"] for row in random])
    found: Row = {"network": name, "backend": backend, "versions": len(random)}
    for key in ("predicted", "by_macs"):
        values = np.array([row[key] for row in random])
        ranks = [np.argsort(np.argsort(one)) for one in (values, measured)]
        found[key] = {
            "median_error": float(np.median(np.abs(values / measured - 1))),
            "rank_correlation": float(np.corrcoef(*ranks)[0, 1]),
        }
    found["budgets"] = [row for row in rows if row["kind"] == "budget"]
    found["model"] = [row for row in rows if row["kind"] == "model"]
    return found


def main() -> None:
    """Run the missing measurements, and write the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--backends", nargs="+", default=["onnxruntime", "openvino"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tables", type=Path, default=Path("tables"))
    parser.add_argument("--again", action="store_true")
    settings = parser.parse_args()
    torch.set_num_threads(settings.threads)
    pairs = [(name, backend) for backend in settings.backends for name in settings.networks]
    if settings.again and ROWS.exists():
        rows = [json.loads(line) for line in ROWS.read_text(encoding="utf-8").splitlines()]
        left = [row for row in rows if (row["network"], row["backend"]) not in pairs]
        ROWS.write_text("".join(json.dumps(row) + "\n" for row in left), encoding="utf-8")
    for name, backend in pairs:
        measure_all(Subject(name, backend, settings.threads, settings.tables))
    lines = [json.loads(line) for line in ROWS.read_text(encoding="utf-8").splitlines()]
    (RESULTS / "latency_model.svg").write_text(picture(lines, "onnxruntime"), encoding="utf-8")
    everything = [summary(name, backend) for backend in ("onnxruntime", "openvino", "torch") for name in NETWORKS]
    write_result("latency_model", {"threads": settings.threads, "rows": [row for row in everything if row]})


if __name__ == "__main__":
    main()
