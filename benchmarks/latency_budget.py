"""Claim: a budget in milliseconds is met by a small margin.

    python benchmarks/latency_budget.py [--threads 1] [--repeats 30]

For each network and backend, `select` gets budgets of several shares of the latency, with the same meter as in runs
(`LatencyMeter`: BatchNorm folded, each network timed in turn with the wide network). The selected networks and the wide
network are then timed again, in turn; reported are the reached shares of latency and of multiply-adds. The weights are
initial weights, so accuracy is not evaluated; the search is the same as in a training.
"""

import argparse
import time
from collections.abc import Callable

import torch
from result import write_result
from torch import nn

import prunus
from prunus.compat import torchvision
from prunus.deploy import BenchmarkSettings, LatencyMeter, benchmark
from prunus.models.erfnet import ERFNet

NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "ERFNet": (lambda: ERFNet(num_classes=11), (1, 3, 120, 160)),
    "ResNet-18": (lambda: torchvision.models.resnet18(num_classes=10), (1, 3, 128, 128)),
    "MobileNetV2": (lambda: torchvision.models.mobilenet_v2(num_classes=10), (1, 3, 128, 128)),
}
SHARES = (0.75, 0.5, 0.3)


def deployed(model: nn.Module, images: torch.Tensor) -> nn.Module:
    """Return the network with BatchNorm folded."""
    return prunus.apply(prunus.fuse(model, images), model).eval()


def rows(name: str, backend: str, threads: int, repeats: int) -> list[dict[str, object]]:
    """Return one row per budget."""
    build, shape = NETWORKS[name]
    torch.manual_seed(0)
    model, images = build().eval(), torch.randn(shape)
    groups = prunus.trace(model, images)
    settings = BenchmarkSettings(backends=(backend,), threads=threads, repeats=repeats, measure_memory=False)
    found, networks = list[dict[str, object]](), {"wide": deployed(model, images)}
    for share in SHARES:
        meter, asked = LatencyMeter(model, images, settings), list[float]()

        def counted(network: nn.Module, meter: LatencyMeter = meter, asked: list[float] = asked) -> float:
            asked.append(meter(network))
            return asked[-1]

        began = time.perf_counter()
        plan = prunus.select(model, groups, budget=prunus.Budget(latency=share), meter=counted)
        small = prunus.apply(plan, model)
        seconds = time.perf_counter() - began
        networks[str(share)] = deployed(small, images)
        macs = prunus.trace(small, images).macs() / groups.macs()
        found.append({"asked": share, "macs": macs, "measurements": len(asked), "seconds": seconds})
    timed = {record.model: record.median_ms for record in benchmark(networks, shape[1:], settings)}
    for row in found:
        row["reached"] = timed[str(row["asked"])] / timed["wide"]
    return [{"network": name, "backend": backend, "wide_ms": timed["wide"], **row} for row in found]


def main() -> None:
    """Write benchmarks/results/latency_budget.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=30)
    settings = parser.parse_args()
    torch.set_num_threads(settings.threads)
    found = []
    for name in NETWORKS:
        for backend in ("onnxruntime", "openvino"):
            for row in rows(name, backend, settings.threads, settings.repeats):
                print(
                    f"{name:12} {backend:12} asked {row['asked']:.0%} reached {row['reached']:.1%} "
                    f"MACs {row['macs']:.0%} {row['measurements']} measurements {row['seconds']:.0f} s",
                    flush=True,
                )
                found.append(row)
    write_result("latency_budget", {"seed": 0, "threads": settings.threads, "rows": found})


if __name__ == "__main__":
    main()
