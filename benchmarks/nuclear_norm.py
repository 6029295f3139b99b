"""Claim: the nuclear norm's proximal step on ResNet-50 is 5x faster than a loop of torch.linalg.svd and at most 15 %
of a training step.

    python benchmarks/nuclear_norm.py [--threads 2] [--batch-size 32] [--size 224] [--repeats 5] [--device cpu]

Times one training step, one proximal step and the naive loop over all convolutions and the classifier in turn, round
after round, and reports medians; says how far the two results are apart. `--skip-loop` leaves the slow loop to one
round.
"""

import argparse
import copy
import datetime
import json
import shlex
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn import functional

from prunus import NuclearNorm
from prunus.compat import torchvision
from prunus.pipeline.environment import hardware, versions

STRENGTH = 1.0
STEP_SIZE = 0.01


@torch.no_grad()
def loop_(penalty, threshold: float) -> None:
    """The naive way: one singular value decomposition after the other."""
    for layer in penalty.layers:
        matrices = layer.view(layer.weight)
        left, values, right = torch.linalg.svd(matrices, full_matrices=False)
        layer.set_((left * (values - threshold).clamp(min=0)[..., None, :]) @ right)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--skip-loop", action="store_true")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    device = torch.device(options.device)
    model = torchvision.models.resnet50().to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=STEP_SIZE)
    images = torch.randn(options.batch_size, 3, options.size, options.size, device=device)
    target = torch.randint(0, 1000, (options.batch_size,), device=device)
    twin = copy.deepcopy(model)
    batched, naive = NuclearNorm(strength=STRENGTH).bind(model), NuclearNorm(strength=STRENGTH).bind(twin)

    def step() -> None:
        loss = functional.cross_entropy(model(images), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def timed(action: Callable[[], object]) -> float:
        began = time.perf_counter()
        action()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began

    batched.prox_(STEP_SIZE)  # on equal weights: how far are the two ways apart?
    loop_(naive, STEP_SIZE * STRENGTH)
    pairs = zip(batched.layers, naive.layers, strict=True)
    apart = max(float(((a.weight - b.weight).norm() / b.weight.norm()).detach()) for a, b in pairs)
    times: dict[str, list[float]] = {"training_step": [], "proximal_step": [], "loop": []}
    for repeat in range(options.repeats + 1):
        chosen = {"training_step": step, "proximal_step": lambda: batched.prox_(STEP_SIZE)}
        if not options.skip_loop or repeat == 1:
            chosen["loop"] = lambda: loop_(naive, STEP_SIZE * STRENGTH)
        for name, action in chosen.items():
            seconds = timed(action)
            if repeat:
                times[name].append(seconds)
    medians = {name: statistics.median(values) for name, values in times.items()}
    result = {
        "date": datetime.date.today().isoformat(),
        "command": shlex.join(["python", "benchmarks/nuclear_norm.py", *sys.argv[1:]]),
        "versions": versions(),
        "hardware": hardware(),
        "threads": options.threads,
        "batch_size": options.batch_size,
        "size": options.size,
        "median_seconds": medians,
        "share_of_a_step": medians["proximal_step"] / medians["training_step"],
        "faster_than_the_loop": medians["loop"] / medians["proximal_step"],
        "relative_difference_to_the_loop": apart,
        "seconds": {name: sorted(values) for name, values in times.items()},
    }
    options.out.mkdir(exist_ok=True)
    path = options.out / f"nuclear_norm-{device.type}.json"
    path.write_text(json.dumps(result, indent=1), encoding="utf-8")
    print(
        f"a proximal step takes {100 * result['share_of_a_step']:.1f} % of a training step and is "  # type: ignore[operator]
        f"{result['faster_than_the_loop']:.1f} times faster than the loop; {path}"
    )


if __name__ == "__main__":
    main()
