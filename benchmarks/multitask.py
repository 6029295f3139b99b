"""Claim: a network with two heads shrinks to 40 % of its multiply-adds, and no slice of either task falls.

    python benchmarks/multitask.py [--arms plain taught] [--seeds 0] [--epochs 30] [--macs 0.4]

`MultiTaskNet` on street scenes of 128 x 64, segmentation and detection together, shrunk in training (arm "plain"; arm
"taught" adds distillation from the wide network as half of the loss), against the wide network trained for as many
epochs. A row (arm, seed, epochs, macs) holds both networks' metrics on the test split, the share of the multiply-adds,
and the result of the gate at 0.5 percentage points: the numbers of slices that were judged, fell, or are in doubt, and
the worst five. Rows are appended to results/multitask.jsonl, and none is repeated.
"""

import argparse
import functools
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch
from frontier_rows import Row, Rows
from result import RESULTS
from torch import nn

import prunus
from prunus.budget.controller import Controller
from prunus.data import StreetMultiTaskData
from prunus.gate import Gate
from prunus.models.multi_task_net import MultiTaskNet
from prunus.records import Recorder
from prunus.tasks.coco_metric import COCOMetric
from prunus.tasks.detection import Detection
from prunus.tasks.distillation import Distillation
from prunus.tasks.interface import BoundTask
from prunus.tasks.multi_task import MultiTask, SubTask
from prunus.tasks.segmentation import Segmentation
from prunus.train.evaluate import evaluate
from prunus.train.fit import TrainingJob, fit
from prunus.train.settings import OptimizerSettings, Train

DATA = StreetMultiTaskData(size=(64, 128), num_train=360, num_validation=2, num_test=200)
DETECTION = Detection(metric=COCOMetric(main="map50"))
TASK = MultiTask(tasks={"segmentation": SubTask(task=Segmentation()), "detection": SubTask(task=DETECTION, weight=0.5)})
WORST = 5


def trained(task: BoundTask, seed: int, epochs: int, macs: float | None) -> nn.Module:
    """Return a trained network, shrunk to the share `macs` of its multiply-adds (None: not shrunk)."""
    settings = Train(
        epochs=epochs, batch_size=8, optimizer=OptimizerSettings(learning_rate=2e-3), schedule="cosine",
        evaluate_every=epochs, checkpoint_every=epochs, threads=1, device="cpu",
    )  # fmt: skip
    torch.manual_seed(seed)
    model = MultiTaskNet(num_classes=DATA.num_classes, blocks="residual", widths=(16, 32, 64, 96))
    shrink = None if macs is None else Controller(budget=prunus.Budget(macs=macs), begin=0.1)
    with tempfile.TemporaryDirectory() as folder:
        where, name = Path(folder), "narrow" if shrink else "wide"
        job = TrainingJob(
            name=name, data=DATA, task=task, settings=settings, seed=seed, folder=where, recorder=Recorder(where)
        )
        return fit(job, model, DATA.train()[0][0][None], shrink).model


def row(arm: str, seed: int, epochs: int, macs: float, wide: Callable[[], nn.Module]) -> Row:
    """Return the figures of a shrunk network and of the wide network."""
    task, before = TASK.bind(DATA), wide()
    narrow = trained(task if arm == "plain" else Distillation().wrap(task, before), seed, epochs, macs)
    options, image = Train(batch_size=10, device="cpu", threads=1), DATA.train()[0][0][None]
    cost = [prunus.trace(model, image).macs() for model in (before, narrow)]
    found = prunus.compare(before, narrow, DATA, task=task, settings=Gate(), train=options)
    return {
        "wide": evaluate(before, task, DATA.test(), options)[0],
        "narrow": evaluate(narrow, task, DATA.test(), options)[0],
        "share_of_macs": cost[1] / cost[0],
        "passed": found.passed,
        "verdicts": Counter(each.verdict for each in found.slices),
        "worst": [
            {"name": each.name, "samples": each.samples, "wide": each.wide, "narrow": each.narrow, "low": each.low,
             "high": each.high, "verdict": each.verdict}
            for each in found.slices[:WORST]
        ],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", nargs="+", choices=("plain", "taught"), default=["plain", "taught"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--macs", type=float, default=0.4)
    options = parser.parse_args()
    rows = Rows(RESULTS / "multitask.jsonl", ("arm", "seed", "epochs", "macs"))
    for seed in options.seeds:
        wide = functools.cache(functools.partial(trained, TASK.bind(DATA), seed, options.epochs, None))
        for arm in options.arms:
            which = {"arm": arm, "seed": seed, "epochs": options.epochs, "macs": options.macs}
            rows.once(which, functools.partial(row, arm, seed, options.epochs, options.macs, wide))


if __name__ == "__main__":
    main()
