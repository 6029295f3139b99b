"""Claim: `shrinker.step()` and the Shrinker's hooks add at most 2 % to a training step, outside cuts.

    python benchmarks/shrinker_step.py [--threads 2] [--repeats 10] [--device cpu]

Copies of one network are trained on the same batch in turn, round after round, one without and two with a Shrinker; the
ratios of the medians are reported. Observing: before the first segment, only the importance is accumulated. Pressing:
within a segment at whose end all groups required by the budget must be zero; the importance is accumulated too.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from result import write_result
from torch import Tensor, nn
from torch.nn import functional

import prunus
from prunus.compat import torchvision
from prunus.models.erfnet import ERFNet

STEPS = 10**6  # so many that no segment ends here
PHASES = {"observing": {"begin": 0.9, "end": 1.0}, "pressing": {"begin": 0.0, "end": 1.0, "every": STEPS}}
WARMUP = 2


def erfnet(device: torch.device) -> tuple[Callable[[], nn.Module], Tensor, Tensor]:
    images = torch.randn(8, 3, 128, 256, device=device)
    return lambda: ERFNet(num_classes=11), images, torch.randint(0, 11, (8, 128, 256), device=device)


def resnet18(device: torch.device) -> tuple[Callable[[], nn.Module], Tensor, Tensor]:
    images = torch.randn(32, 3, 224, 224, device=device)
    return torchvision.models.resnet18, images, torch.randint(0, 1000, (32,), device=device)


NETWORKS = {"erfnet-256x128-batch8": erfnet, "resnet18-224x224-batch32": resnet18}


class Twin:
    """A network and its optimizer, with a Shrinker in one of its phases, or without."""

    def __init__(self, build: Callable[[], nn.Module], images: Tensor, phase: str | None) -> None:
        torch.manual_seed(0)
        self.model = build().to(images.device)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4)
        self.shrinker: prunus.Shrinker | None = None
        if phase is not None:
            budget = prunus.Budget(macs=0.4)
            self.shrinker = prunus.Shrinker(
                self.model, self.optimizer, images[:1], budget=budget, steps=STEPS, **PHASES[phase]
            )

    def step(self, images: Tensor, target: Tensor) -> float:
        """Take a step and return its seconds."""
        began = time.perf_counter()
        loss = functional.cross_entropy(self.model(images), target)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        if self.shrinker is not None:
            self.shrinker.step()
        if images.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began


def measure(name: str, device: torch.device, repeats: int) -> dict[str, object]:
    """Time the three twins in turn."""
    build, images, target = NETWORKS[name](device)
    twins = {phase: Twin(build, images, phase) for phase in (None, *PHASES)}
    seconds: dict[str | None, list[float]] = {phase: [] for phase in twins}
    for repeat in range(repeats + WARMUP):
        for phase, twin in twins.items():
            taken = twin.step(images, target)
            if repeat >= WARMUP:
                seconds[phase].append(taken)
    shrinker = twins["pressing"].shrinker
    assert shrinker is not None and bool(shrinker.pressure.pressed.any())
    plain = statistics.median(seconds[None])
    return {
        "overhead": {phase: statistics.median(seconds[phase]) / plain - 1 for phase in PHASES},
        "seconds": {phase or "plain": sorted(taken) for phase, taken in seconds.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = {name: measure(name, torch.device(options.device), options.repeats) for name in NETWORKS}
    result = {"threads": options.threads, "repeats": options.repeats, "networks": rows}
    path = write_result(f"shrinker_step-{options.device}", result, folder=options.out)
    for name, row in rows.items():
        print(name, row["overhead"])
    print(path)


if __name__ == "__main__":
    main()
