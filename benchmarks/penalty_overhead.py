"""Claim: the penalty adds at most 5 % to a training step of ERFNet at 256x128, batch 8.

    python benchmarks/penalty_overhead.py [--threads 2] [--repeats 10] [--device cpu]

Times one plain step and one step with all additions of a shrinking run (importance, norms, proximal step), in turn,
round after round, and reports the ratio of the medians.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch
from result import write_result
from torch.nn import functional

from prunus import GroupLasso, trace
from prunus.budget.controller import thresholds
from prunus.models.erfnet import ERFNet
from prunus.penalties import taylor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    device = torch.device(options.device)
    model = ERFNet(num_classes=11).to(device)
    images = torch.randn(8, 3, 128, 256, device=device)
    target = torch.randint(0, 11, (8, 128, 256), device=device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    groups = trace(model, images[:1])
    penalty = GroupLasso().bind(model, groups)
    pressed = (torch.arange(len(groups)) % 3 == 0) & groups.exact
    importance = torch.zeros(len(groups))

    def step(penalised: bool) -> float:
        nonlocal importance
        began = time.perf_counter()
        loss = functional.cross_entropy(model(images), target)
        optimizer.zero_grad()
        loss.backward()
        if penalised:
            importance = torch.lerp(taylor(penalty.slices).cpu(), importance, 0.98)
        optimizer.step()
        if penalised:
            norms = penalty.slices.norms()
            penalty.shrink_(thresholds(norms, pressed, 1000), norms)
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began

    times: dict[bool, list[float]] = {False: [], True: []}
    for repeat in range(options.repeats + 2):
        for penalised in (False, True):
            seconds = step(penalised)
            if repeat >= 2:
                times[penalised].append(seconds)
    plain, with_penalty = (statistics.median(times[flag]) for flag in (False, True))
    result = {
        "threads": options.threads,
        "repeats": options.repeats,
        "overhead": with_penalty / plain - 1,
        "plain_seconds": sorted(times[False]),
        "penalised_seconds": sorted(times[True]),
    }
    path = write_result(f"penalty_overhead-{device.type}", result, folder=options.out)
    print(f"the penalty adds {100 * result['overhead']:.1f} % to a step; {path}")  # type: ignore[operator]


if __name__ == "__main__":
    main()
