"""Claims for ResNet-50 with AdamW: a cut takes at most 2 s and 1.5 times the memory, a checkpoint blocks for 0.3 s.

    python benchmarks/reliability.py

torchvision's ResNet-50 (random weights, 25.6 M parameters) takes one step of AdamW, then half of its removable groups
are zeroed. `shrink` is the work of the loop between two epochs: select, apply, compare the outputs (224 x 224), carry
the optimizer over, bind the penalty. Memory is the process's resident set, sampled every millisecond, relative to the
previous weights, gradients and moments. The checkpoint is `save` between two steps: the time that the loop waits, and
by how much the longest gap in a loop of small products grows while the checkpoint is written. The processor time that
the two threads take from each other is not included.
"""

import argparse
import ctypes
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch
from result import write_result

from prunus.compat import torchvision
from prunus.penalties.zeros import zero_
from prunus.records import Recorder
from prunus.train import checkpoint
from prunus.train.background import Background
from prunus.train.job import TrainingJob
from prunus.train.settings import OptimizerSettings, Train
from prunus.train.training_state import TrainingState, save, start

HERE = Path(__file__).parent
REPEATS, SAVES = 3, 7


class Peak:
    """The largest resident set of this process while the body runs, in bytes."""

    def __enter__(self) -> "Peak":
        ctypes.CDLL(None).malloc_trim(0)  # freed memory that the process still holds would hide new allocations
        self.process, self.bytes, self.running = psutil.Process(), 0, True
        self.before = self.process.memory_info().rss
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()
        return self

    def watch(self) -> None:
        """Sample until the body ends."""
        while self.running:
            self.bytes = max(self.bytes, self.process.memory_info().rss)
            time.sleep(0.001)

    def __exit__(self, *error: object) -> None:
        self.running = False
        self.thread.join()


def step(state: TrainingState, images: torch.Tensor) -> None:
    state.optimizer.zero_grad()
    state.model(images).square().mean().backward()
    state.optimizer.step()


def begun(folder: Path) -> tuple[TrainingState, TrainingJob]:
    settings = Train(optimizer=OptimizerSettings(name="adamw"), device="cpu")
    about: dict[str, Any] = {"data": None, "task": None, "recorder": Recorder(folder)}
    training = TrainingJob(name="wide", settings=settings, seed=0, folder=folder, **about)
    torch.manual_seed(0)
    model = torchvision.models.resnet50()
    state = start(model, torch.randn(1, 3, 224, 224), training, 100)
    step(state, torch.randn(8, 3, 64, 64))
    return state, training


def cut(folder: Path) -> dict[str, float]:
    """Time one cut and measure its memory."""
    state, _ = begun(folder)
    exact = state.groups.exact.nonzero().flatten()
    chosen = torch.zeros(len(state.groups), dtype=torch.bool)
    chosen[exact[torch.randperm(len(exact))[: len(exact) // 2]]] = True
    zero_(state.model, state.groups, chosen)
    held = sum(p.numel() * p.element_size() for p in state.model.parameters()) * 4  # weights, gradients, two moments
    with Peak() as peak:
        began = time.perf_counter()
        result = state.live.cut_zeros((), "here", epoch=1)
        seconds = time.perf_counter() - began
    assert result is not None
    record = result.record
    return {
        "seconds": seconds,
        "removed_groups": record.removed_groups,
        "params_before": record.params_before,
        "params_after": record.params_after,
        "held_bytes": held,
        "peak_more_bytes": peak.bytes - peak.before,
        "memory_ratio": (held + peak.bytes - peak.before) / held,
    }


def longest_gap(while_true: Callable[[], bool]) -> float:
    """Return the longest time between two iterations of a loop."""
    matrix, longest, last = torch.randn(128, 128), 0.0, time.perf_counter()
    while while_true():
        matrix @ matrix
        now = time.perf_counter()
        longest, last = max(longest, now - last), now
    return longest


def stalls(folder: Path) -> list[dict[str, float]]:
    """Time several calls of `save` in one training, and the gaps in the loop while each checkpoint is written."""
    state, training = begun(folder)
    rows = []
    with Background() as background:
        for _ in range(SAVES):
            until = time.perf_counter() + 1
            before = longest_gap(lambda until=until: time.perf_counter() < until)
            began = time.perf_counter()
            save(state, training, background)
            copied = time.perf_counter() - began
            during = longest_gap(lambda: background.busy)
            rows.append(
                {
                    "save_returns_seconds": copied,
                    "written_after_seconds": time.perf_counter() - began,
                    "longest_gap_before_seconds": before,
                    "longest_gap_while_written_seconds": during,
                    "stopped_seconds": copied + max(0.0, during - before),
                }
            )
    found = checkpoint.latest(training.checkpoints)
    assert found is not None and len(rows) == SAVES
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    threads = parser.parse_args().threads
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory(dir=HERE) as folder:
        cuts = [cut(Path(folder) / f"cut{number}") for number in range(REPEATS)]
        saves = stalls(Path(folder) / "saves")
    result = {
        "threads": threads,
        "claims": {
            "cut_seconds": statistics.median(row["seconds"] for row in cuts),
            "cut_memory_ratio": max(row["memory_ratio"] for row in cuts),
            "first_checkpoint_stopped_seconds": saves[0]["stopped_seconds"],
            "checkpoint_stopped_seconds": statistics.median(row["stopped_seconds"] for row in saves),
        },
        "cuts": cuts,
        "saves": saves,
    }
    write_result("reliability", result)
    print(json.dumps(result["claims"], indent=1))


if __name__ == "__main__":
    main()
