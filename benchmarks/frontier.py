"""Prunus against the alternatives: arms x budgets x seeds on real data, with equal epochs and batch size.

    python benchmarks/frontier.py train --data DATA [--tasks gtsrb] [--budgets macs=0.1] [--arms joint] [--seeds 0 1 2]
    python benchmarks/frontier.py time --data DATA [--rounds 3]      alone on the machine, after `train`
    python benchmarks/frontier.py table

For each task, budget and arm, the learning rate is chosen among the same three on the validation split (seed 0); then
the network of each seed at that rate is tested once. Rows are appended to results/frontier.jsonl, so a stopped
benchmark resumes, also on another machine. `train` may run beside other work, except with a budget in milliseconds,
which is measured during training and needs an idle machine. `time` measures milliseconds and training seconds of the
networks in the folder of the runs. The table is results/frontier.md, its picture frontier.svg.
"""

import argparse
import itertools
from typing import Any

import torch
from frontier_arms import ARMS, OURS_TWICE, TWICE, WIDE, WIDE_LONG, Attempt
from frontier_rows import Row, Rows
from frontier_table import write_table
from frontier_tasks import BUDGETS, TASKS, add_options
from frontier_time import time_networks, time_trainings
from frontier_train import Trained
from result import RESULTS

from prunus import apply, export_onnx, fuse

KEY = ("task", "budget", "arm", "learning_rate", "seed", "split")
CHOICE_SEED = 0


def rows() -> Rows:
    """Return the rows of trained networks."""
    return Rows(RESULTS / "frontier.jsonl", KEY)


def measured(attempt: Attempt, split: str) -> Row:
    """Train; return the figures on the validation split and, if `split` is "test", on the test split."""
    metric = TASKS[attempt.task].metric
    trained = attempt.train()
    figures: dict[str, Any] = {"validation": trained.metrics("validation")[metric]}
    if split == "test":
        figures["test"] = trained.metrics("test")[metric]
        export(trained)
    shrink = trained.run.recipe.stages[0].shrink
    if shrink is not None and attempt.arm in ("joint", "scratch", *OURS_TWICE):
        figures |= dict(zip(("begin", "end"), shrink.shares, strict=True))
    return {
        **figures,
        "macs": trained.macs(),
        "mean_macs": trained.mean_macs(),
        "params": sum(parameter.numel() for parameter in trained.model.parameters()),
        "epochs": trained.epochs(),
    }


def export(trained: Trained) -> None:
    """Write the network in its deployed form into the folder of its run, for the timing."""
    model = trained.model.cpu().eval()
    deployed = apply(fuse(model, trained.run.inputs), model).eval()
    export_onnx(deployed, trained.run.inputs, trained.run.folder / "network.onnx")


def row(attempt: Attempt, split: str) -> Row:
    """Return the row of an attempt; train it if there is no row yet."""
    values = (attempt.task, attempt.budget, attempt.arm, attempt.rate, attempt.seed, split)
    return rows().once(dict(zip(KEY, values, strict=True)), lambda: measured(attempt, split))


def chosen(task: str, budget: str | None, arm: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return the settings of the arm at the learning rate that is best on the validation split."""
    about: dict[str, Any] = {
        "task": task,
        "budget": budget,
        "arm": arm,
        "data": options.data,
        "runs": options.runs,
        "wide_rate": chosen(task, None, WIDE, options)["rate"] if arm in TWICE else None,
        "joint_rate": chosen(task, budget, "joint", options)["rate"] if arm == "scratch" else None,
    }
    if arm == WIDE_LONG:
        return {**about, "rate": chosen(task, None, WIDE, options)["rate"]}
    tried = {
        rate: row(Attempt(**about, rate=rate, seed=CHOICE_SEED), "validation")["validation"]
        for rate in TASKS[task].rates
    }
    return {**about, "rate": max(tried, key=lambda rate: tried[rate])}


def train(options: argparse.Namespace) -> None:
    """Train the missing rows, task by task."""
    for task in options.tasks:
        arms = [arm for arm in options.arms if arm != WIDE_LONG]
        cells = [(None, WIDE), *itertools.product(options.budgets, arms)]
        if WIDE_LONG in options.arms:
            cells.append((None, WIDE_LONG))
        for budget, arm in cells:
            settings = chosen(task, budget, arm, options)
            for seed in options.seeds:
                row(Attempt(**settings, seed=seed), "test")
            write_table(rows().read(), str(options.data))


def time(options: argparse.Namespace) -> None:
    """Measure the milliseconds and the training seconds of all tested networks."""
    tested = [row for row in rows().read() if row["split"] == "test" and row["task"] in options.tasks]
    time_networks(tested, options)
    time_trainings([row for row in tested if row["seed"] == CHOICE_SEED], options)
    write_table(rows().read(), str(options.data))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = {"train": train, "time": time, "table": lambda options: write_table(rows().read(), str(options.data))}
    parser.add_argument("command", choices=list(commands))
    add_options(parser, list(TASKS))
    parser.add_argument("--budgets", nargs="+", default=["macs=0.3", "macs=0.1"], choices=list(BUDGETS))
    parser.add_argument("--arms", nargs="+", default=[*ARMS, WIDE_LONG], choices=[*ARMS, WIDE_LONG])
    parser.add_argument("--rounds", type=int, default=3, help="of the timed trainings")
    parser.add_argument("--part", type=int, default=4, help="one of so many training images, in the timed trainings")
    options = parser.parse_args()
    torch.set_num_threads(1)
    commands[options.command](options)


if __name__ == "__main__":
    main()
