"""Claim: the metric of a protected class falls less when the network is cut hard.

    python benchmarks/protect.py [--seeds 0 1 2] [--epochs 40] [--macs 0.2] [--weight 6]

ERFNet of a quarter of the width on street scenes of 128 x 64, shrunk to 20 % of its multiply-adds, without protection
and with `protect: {classes: [pedestrian]}`, against the wide network trained for as long. A row (arm, seed, epochs,
macs, weight) holds the pedestrians' IoU and the mean IoU on the test split, and for narrow networks the interval of the
pedestrians' drop and the gate's verdict. Rows are appended to results/protect.jsonl, and none is repeated.
"""

import argparse
import functools
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from frontier_rows import Row, Rows
from result import RESULTS
from torch import nn

import prunus
from prunus.budget.controller import Controller
from prunus.data import StreetData
from prunus.gate import Gate, Protect
from prunus.models.erfnet import ERFNet
from prunus.records import Recorder
from prunus.tasks.interface import BoundTask
from prunus.tasks.segmentation import Segmentation
from prunus.train.evaluate import evaluate
from prunus.train.fit import TrainingJob, fit
from prunus.train.settings import OptimizerSettings, Train

DATA = StreetData(size=(64, 128), num_train=160, num_validation=2, num_test=150)
TASK = Segmentation()
GATE = Gate(min_samples=20, per=("class",))


def trained(task: BoundTask, seed: int, epochs: int, macs: float | None) -> nn.Module:
    """Return a trained network, shrunk to the share `macs` of its multiply-adds (None: not shrunk)."""
    settings = Train(
        epochs=epochs, batch_size=8, optimizer=OptimizerSettings(learning_rate=3e-3), evaluate_every=epochs,
        checkpoint_every=epochs, threads=1, device="cpu",
    )  # fmt: skip
    torch.manual_seed(seed)
    model = ERFNet(num_classes=len(DATA.class_names), width_multiplier=0.25, dropout_late=0.1)
    shrink = None if macs is None else Controller(budget=prunus.Budget(macs=macs))
    with tempfile.TemporaryDirectory() as folder:
        where, name = Path(folder), "narrow" if shrink else "wide"
        job = TrainingJob(
            name=name, data=DATA, task=task, settings=settings, seed=seed, folder=where, recorder=Recorder(where)
        )
        return fit(job, model, DATA.train()[0][0][None], shrink).model


def figures(model: nn.Module, wide: nn.Module | None = None) -> Row:
    """Return the pedestrians' IoU, the mean IoU, and the gate's result for pedestrians."""
    task = TASK.bind(DATA)
    metrics, per_class = evaluate(model, task, DATA.test(), Train(batch_size=10, device="cpu"))
    found = {"pedestrian": per_class["pedestrian"], **metrics}
    if wide is not None:
        slices = prunus.compare(wide, model, DATA, task=task, settings=GATE).slices
        person = next(each for each in slices if each.name == "pedestrian")
        found |= {"low": person.low, "high": person.high, "verdict": person.verdict}
    return found


def row(task: BoundTask | None, seed: int, epochs: int, macs: float, wide: Callable[[], nn.Module]) -> Row:
    """Return the figures of the wide network (no task), or of a network shrunk with `task`."""
    return figures(wide()) if task is None else figures(trained(task, seed, epochs, macs), wide())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--macs", type=float, default=0.2)
    parser.add_argument("--weight", type=float, default=6.0)
    options = parser.parse_args()
    rows = Rows(RESULTS / "protect.jsonl", ("arm", "seed", "epochs", "macs", "weight"))
    plain = TASK.bind(DATA)
    protected = Protect(classes=("pedestrian",), weight=options.weight).task(plain, DATA.class_names)
    for seed in options.seeds:
        wide = functools.cache(functools.partial(trained, plain, seed, options.epochs, None))
        arms = {"wide": (None, 1.0), "plain": (plain, 1.0), "protected": (protected, options.weight)}
        for arm, (task, weight) in arms.items():
            which = {"arm": arm, "seed": seed, "epochs": options.epochs, "macs": options.macs, "weight": weight}
            rows.once(which, functools.partial(row, task, seed, options.epochs, options.macs, wide))


if __name__ == "__main__":
    main()
