"""Claim: the nuclear norm's proximal step on ResNet-50 is 5x faster than a loop of torch.linalg.svd and at most 15 %
of a training step.

    python benchmarks/nuclear_norm.py [--threads 2] [--batch-size 32] [--size 224] [--repeats 5] [--device cpu]

Times, in turn and round after round: one training step (SGD with momentum), one proximal step after it, the same
proximal step without its update of the momentum, and the naive loop over all convolutions and the classifier. Reports
the medians, the difference between both results, and for one proximal step per epoch its share of an ImageNet epoch.
The step without momentum does the work of the loop. `--skip-loop` runs the slow loop in one round only.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from result import write_result
from torch import nn
from torch.nn import functional

from prunus import NuclearNorm
from prunus.compat import torchvision
from prunus.penalties.nuclear_norm import BoundNuclearNorm

STRENGTH = 1.0
STEP_SIZE = 0.01
IMAGES_PER_EPOCH = 1_281_167  # of ImageNet


@torch.no_grad()
def loop_(penalty: BoundNuclearNorm, threshold: float) -> None:
    """Apply the proximal step naively: one singular value decomposition after the other."""
    for layer in penalty.layers:
        matrices = layer.view(layer.weight)
        left, values, right = torch.linalg.svd(matrices, full_matrices=False)
        layer.set_((left * (values - threshold).clamp(min=0)[..., None, :]) @ right)


def parsed() -> argparse.Namespace:
    """Return the command-line options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--skip-loop", action="store_true")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    return parser.parse_args()


def trained(options: argparse.Namespace) -> tuple[nn.Module, torch.optim.SGD, Callable[[], None]]:
    """Return a ResNet-50, its optimizer, and a function that does one training step on it."""
    model = torchvision.models.resnet50().to(options.device)
    optimizer = torch.optim.SGD(model.parameters(), lr=STEP_SIZE, momentum=0.9)
    images = torch.randn(options.batch_size, 3, options.size, options.size, device=options.device)
    target = torch.randint(0, 1000, (options.batch_size,), device=options.device)

    def step() -> None:
        loss = functional.cross_entropy(model(images), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return model, optimizer, step


def apart(batched: BoundNuclearNorm, naive: BoundNuclearNorm) -> float:
    """Apply both variants once to equal weights; return their largest difference relative to a layer's norm."""
    batched.prox_(STEP_SIZE)
    loop_(naive, STEP_SIZE * STRENGTH)
    pairs = zip(batched.layers, naive.layers, strict=True)
    return max(float(((a.weight - b.weight).norm() / b.weight.norm()).detach()) for a, b in pairs)


def timed(actions: dict[str, Callable[[], None]], options: argparse.Namespace) -> dict[str, list[float]]:
    """Return the seconds of each action, round after round; the first round warms up."""
    times: dict[str, list[float]] = {name: [] for name in actions}
    for repeat in range(options.repeats + 1):
        for name, action in actions.items():
            if name == "loop" and options.skip_loop and repeat != 1:
                continue
            began = time.perf_counter()
            action()
            if options.device != "cpu":
                torch.cuda.synchronize()
            if repeat:
                times[name].append(time.perf_counter() - began)
    return times


def main() -> None:
    options = parsed()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    model, optimizer, step = trained(options)
    penalty = NuclearNorm(strength=STRENGTH)
    batched, naive = penalty.bind(model), penalty.bind(copy.deepcopy(model))
    difference = apart(batched, naive)
    actions: dict[str, Callable[[], None]] = {
        "training_step": step,
        "proximal_step": lambda: batched.prox_(STEP_SIZE, optimizer),
        "proximal_step_alone": lambda: batched.prox_(STEP_SIZE),
        "loop": lambda: loop_(naive, STEP_SIZE * STRENGTH),
    }
    times = timed(actions, options)
    medians = {name: statistics.median(values) for name, values in times.items()}
    share, faster = (
        medians[a] / medians[b] for a, b in (("proximal_step", "training_step"), ("loop", "proximal_step_alone"))
    )
    result = {
        "threads": options.threads,
        "batch_size": options.batch_size,
        "size": options.size,
        "median_seconds": medians,
        "share_of_a_step": share,
        "share_of_an_epoch": share * options.batch_size / IMAGES_PER_EPOCH,
        "faster_than_the_loop": faster,
        "relative_difference_to_the_loop": difference,
        "seconds": {name: sorted(values) for name, values in times.items()},
    }
    path = write_result(f"nuclear_norm-{torch.device(options.device).type}", result, folder=options.out)
    print(f"a proximal step: {100 * share:.1f} % of a training step, {faster:.1f} times faster than the loop; {path}")


if __name__ == "__main__":
    main()
