"""Claim: one training through three budgets yields three networks in less time than three trainings.

    python benchmarks/family.py --data DATA --seeds 0 1 2
    python benchmarks/family.py --data DATA --override shrink.begin=0.4 shrink.end=0.8

Recipe gtsrb_small, budgets of 70, 50 and 30 % of the multiply-adds: the family, and one training per budget with the
same settings. Seconds are processor time of one thread, so that a busy machine does not matter; they cover training
steps, the choice of groups to shrink, cuts and the starts of branches, but not evaluation. Accuracy is top-1 on the
validation and the test split, each evaluated once, at the end. A stopped benchmark resumes; finished arms are not
repeated.
"""

import argparse
import dataclasses
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from result import write_result

from prunus.budget.controller import Controller
from prunus.errors import InterruptedTrainingError
from prunus.pipeline import Recipe, Watch, stages
from prunus.pipeline.context import RunContext
from prunus.recipe import load
from prunus.records import EpochRecord, Recorder
from prunus.train.evaluate import evaluate

RECIPE = Path(__file__).parents[1] / "recipes" / "gtsrb_small.yaml"
SHARES = (0.7, 0.5, 0.3)


class Seconds:
    """The processor seconds of each epoch, in a file from which an interrupted benchmark resumes."""

    def __init__(self, path: Path) -> None:
        self.path, self.began, self.stepped = path, time.process_time(), time.process_time()

    def step(self, *ignored: object) -> None:
        """Record the end of a step."""
        self.stepped = time.process_time()

    def epoch(self, record: EpochRecord) -> None:
        """Store the epoch's seconds, without the evaluation at the end of the last epoch."""
        last = record.epoch == record.epochs
        self._write(record.model, record.epoch, self.stepped if last else time.process_time(), whole=True)

    def stopped(self) -> None:
        """Store the seconds of an interrupted epoch that will be resumed."""
        self._write("", 0, self.stepped, whole=False)

    def total(self) -> float:
        """Return the seconds of all epochs; for an epoch repeated after a kill, those of the last attempt."""
        rows = [json.loads(line) for line in self.path.read_text(encoding="utf-8").splitlines()]
        whole = {(row["name"], row["epoch"]): row["seconds"] for row in rows if row["whole"]}
        return sum(whole.values()) + sum(row["seconds"] for row in rows if not row["whole"])

    def _write(self, name: str, epoch: int, until: float, *, whole: bool) -> None:
        row = {"name": name, "epoch": epoch, "seconds": until - self.began, "whole": whole}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        self.began = time.process_time()


def trained(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """Train one arm and return its seconds and its networks' accuracy; finished results are read."""
    done = folder / "done.json"
    if done.exists():
        found: dict[str, Any] = json.loads(done.read_text(encoding="utf-8"))
        return found
    folder.mkdir(parents=True, exist_ok=True)
    seconds, task = Seconds(folder / "seconds.jsonl"), recipe.task.bind(recipe.data)
    watch = Watch(step=seconds.step, epoch=seconds.epoch)
    inputs, recorder = recipe.data.train()[0][0][None], Recorder(folder)
    run = RunContext(recipe=recipe, folder=folder, recorder=recorder, task=task, inputs=inputs, watch=watch)
    try:
        reached = stages.run_stages(run, None, None)
    except InterruptedTrainingError:
        seconds.stopped()
        raise
    networks = {
        network.name: {
            split: evaluate(network.model, task, data, recipe.train)[0][task.main_metric]
            for split, data in (("validation", recipe.data.validation()), ("test", recipe.data.test()))
        }
        for network in reached
    }
    result = {"seconds": seconds.total(), "networks": networks}
    done.write_text(json.dumps(result), encoding="utf-8")
    return result


def of_seed(seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Return both sides of the claim for one seed."""
    overrides = [f"data.root={options.data}", "train.threads=1", "train.device=cpu", "baseline=false"]
    recipe = load(Recipe, RECIPE, [*overrides, *options.override, f"seed={seed}"])
    recipe = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, evaluate_every=recipe.train.epochs))
    assert recipe.shrink is not None
    where = options.runs / ("-".join(options.override).replace("/", "_") or "recipe") / str(seed)
    template = dataclasses.replace(recipe.shrink.budget, macs=0.4)
    shrink: Controller = dataclasses.replace(recipe.shrink, budget=template, budgets=SHARES)
    family = trained(dataclasses.replace(recipe, shrink=shrink), where / "family")
    own = {}
    for share, budget in zip(SHARES, shrink.sequence, strict=True):
        single = dataclasses.replace(recipe.shrink, budget=budget)
        own[share] = trained(dataclasses.replace(recipe, shrink=single), where / f"{share}")
    points = {
        split: {
            share: 100 * (member[split] - own[share]["networks"]["narrow"][split])
            for share, member in zip(SHARES, family["networks"].values(), strict=True)
        }
        for split in ("validation", "test")
    }
    share_of_seconds = family["seconds"] / sum(each["seconds"] for each in own.values())
    return {"seed": seed, "share_of_seconds": share_of_seconds, "points": points, "family": family, "own": own}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="the folder of gtsrb_small")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path("runs/family"))
    parser.add_argument("--override", nargs="*", default=[], help="key=value of the recipe")
    parser.add_argument("--name", default="family", help="of the result's file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    runs = []
    for seed in options.seeds:
        runs.append(of_seed(seed, options))
        print(json.dumps({key: runs[-1][key] for key in ("seed", "share_of_seconds", "points")}), flush=True)
    mean = {
        "share_of_seconds": statistics.mean(run["share_of_seconds"] for run in runs),
        "points": {
            split: {share: statistics.mean(run["points"][split][share] for run in runs) for share in SHARES}
            for split in ("validation", "test")
        },
    }
    print(write_result(options.name, {"mean": mean, "runs": runs}, data=options.data))


if __name__ == "__main__":
    main()
