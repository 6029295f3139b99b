"""Claim: an expanded network trains at nearly the narrow network's cost.

    python benchmarks/expanded_step.py [--threads 1] [--repeats 9]

For each network, training steps of three kinds are timed in turn in one process: of the network as built, of the
expanded network through its contracted kernels (`prunus.train.contracted`), and of the expanded network factor by
factor. Every convolution with a kernel above 1 x 1 and every hidden linear layer is expanded at rate 4. The ratios of
the medians are valid on a noisy machine. The gradients of both expanded variants are compared, relative to the largest.
"""

import argparse
import contextlib
import copy
import json
import statistics
import time
from collections.abc import Callable

import torch
from result import write_result
from torch import nn

import prunus
from prunus.compat import torchvision
from prunus.models.erfnet import ERFNet
from prunus.models.small_net import SmallNet
from prunus.train.contracted import through_kernels

NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "SmallNet k3": (lambda: SmallNet(num_classes=10, kernel=3), (128, 3, 32, 32)),
    "SmallNet k7": (lambda: SmallNet(num_classes=10, kernel=7), (128, 3, 32, 32)),
    "ERFNet": (lambda: ERFNet(num_classes=11), (4, 3, 120, 160)),
    "MobileNetV2": (lambda: torchvision.models.mobilenet_v2(num_classes=10), (8, 3, 96, 96)),
}


def step(model: nn.Module, optimizer: torch.optim.Optimizer, images: torch.Tensor, *, kernels: bool) -> float:
    """Take one step and return its seconds."""
    began = time.perf_counter()
    with through_kernels(model) if kernels else contextlib.nullcontext():
        loss = model(images).square().mean()
        optimizer.zero_grad()
        loss.backward()
    optimizer.step()
    return time.perf_counter() - began


def largest_difference(model: nn.Module, images: torch.Tensor) -> float:
    """Return the largest difference of the gradients through the kernels and factor by factor, in float64."""
    pair = [copy.deepcopy(model).double() for _ in range(2)]
    for network, context in zip(pair, (through_kernels, contextlib.nullcontext), strict=True):
        torch.manual_seed(0)  # for dropout
        with context(network):
            network(images.double()).square().mean().backward()
    gradients = zip(*([p.grad for p in each.parameters() if p.grad is not None] for each in pair), strict=True)
    differences, sizes = zip(*((float((a - b).abs().max()), float(b.abs().max())) for a, b in gradients), strict=True)
    return max(differences) / max(sizes)  # over all, since the gradient of a bias before BatchNorm is only rounding


def measured(build: Callable[[], nn.Module], shape: tuple[int, ...], repeats: int) -> dict[str, object]:
    """Return the row of one network."""
    torch.manual_seed(0)
    plain, images = build(), torch.randn(shape)
    layers = [path for path, m in plain.named_modules() if isinstance(m, nn.Conv2d) and max(m.kernel_size) > 1]
    hidden = [path for path, m in plain.named_modules() if isinstance(m, nn.Linear)][:-1]
    wide = prunus.apply(prunus.expand(plain, layers + hidden, 4), plain)
    networks = {"plain": plain, "through_kernels": wide, "factor_by_factor": copy.deepcopy(wide)}
    optimizers = {name: torch.optim.SGD(each.parameters(), lr=1e-4) for name, each in networks.items()}
    seconds: dict[str, list[float]] = {name: [] for name in networks}
    for number in range(repeats + 1):
        for name, network in networks.items():
            spent = step(network, optimizers[name], images, kernels=name == "through_kernels")
            if number:
                seconds[name].append(spent)
    median = {name: statistics.median(each) for name, each in seconds.items()}
    params = {name: sum(p.numel() for p in each.parameters()) for name, each in networks.items()}
    return {
        "batch": list(shape),
        "params": params,
        "median_seconds": median,
        "times_the_plain_step": {name: each / median["plain"] for name, each in median.items()},
        "gradients_differ_by": largest_difference(wide, images[:2]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = {}
    for name, (build, shape) in NETWORKS.items():
        rows[name] = measured(build, shape, options.repeats)
        print(name, json.dumps(rows[name]), flush=True)
    result = {
        "threads": options.threads,
        "repeats": options.repeats,
        "rows": rows,
    }
    write_result("expanded_step-cpu", result)


if __name__ == "__main__":
    main()
