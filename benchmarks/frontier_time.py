"""The timing pass of `frontier.py`: milliseconds and training seconds, interleaved, on a machine that is quiet.

Milliseconds: the files of all networks of a task and seed are run in turn, the wide one among them. Training seconds:
every arm trains for all its epochs on one of `--part` images, round after round; the seconds of its steps are then
those of all images, those of its cuts stay as they are. Both are kept as shares of the wide network's of the same
round. What torch-pruning and `select` take to prune is not counted.
"""

import argparse
import dataclasses
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from frontier_arms import WIDE, Attempt
from frontier_rows import Row, Rows
from frontier_tasks import TASKS
from result import RESULTS
from torch import Tensor

from prunus import BenchmarkSettings, benchmark
from prunus.data.interface import Split
from prunus.pipeline import Recipe

TIME_KEY = ("what", "task", "budget", "arm", "seed", "round")


def time_rows() -> Rows:
    """Return the rows of what was timed."""
    return Rows(RESULTS / "frontier-times.jsonl", TIME_KEY)


def time_networks(tested: list[Row], options: argparse.Namespace) -> None:
    """Time the networks of each task and seed in turn, where one of them has no row yet."""
    groups = defaultdict(list)
    for row in tested:
        groups[row["task"], row["seed"]].append(row)
    for (task, seed), members in groups.items():
        files = {}
        for row in members:
            file = folder_of(row, options.runs) / "network.onnx"
            if not file.exists():
                print(f"{file} is not here: train this row where it is to be timed", flush=True)
                continue
            files[f"{row['budget']}/{row['arm']}"] = file
        known = {f"{r['budget']}/{r['arm']}" for r in time_rows().read() if (r["task"], r["seed"]) == (task, seed)}
        if f"None/{WIDE}" not in files or not set(files) - known:
            continue
        shape = tuple(TASKS[task].recipe(options.data).data.test()[0][0].shape)
        settings = BenchmarkSettings(backends=("onnxruntime",), threads=1, repeats=100, measure_memory=False)
        timed = {record.model: record.median_ms for record in benchmark(files, shape, settings)}
        for name, value in timed.items():
            budget, _, arm = name.partition("/")
            keep("ms", task, budget, arm, seed, 0, value, timed[f"None/{WIDE}"])


def time_trainings(tested: list[Row], options: argparse.Namespace) -> None:
    """Train each arm of the rows on a part of the images, round after round, anew each time."""
    for number in range(options.rounds):
        wide: dict[str, float] = {}
        for row in sorted(tested, key=lambda row: row["arm"] != WIDE):
            if (row["budget"] or "").startswith("latency"):
                continue  # its measurements are seconds that do not grow with the images
            with tempfile.TemporaryDirectory() as folder:
                value = training_seconds(row, tested, options, Path(folder))
            if row["arm"] == WIDE:
                wide[row["task"]] = value
            keep("seconds", row["task"], str(row["budget"]), row["arm"], row["seed"], number, value, wide[row["task"]])


def training_seconds(row: Row, tested: list[Row], options: argparse.Namespace, runs: Path) -> float:
    """Return the seconds that training the row's arm takes on all images, told from a part of them."""

    def part(recipe: Recipe) -> Recipe:
        data: Any = PartOfData(recipe.data, options.part)
        return dataclasses.replace(recipe, data=data)

    joint = [r["learning_rate"] for r in tested if (r["task"], r["budget"], r["arm"]) == (*cell(row), "joint")]
    attempt = Attempt(
        task=row["task"],
        budget=row["budget"],
        arm=row["arm"],
        rate=row["learning_rate"],
        seed=row["seed"],
        data=options.data,
        runs=runs,
        joint_rate=joint[0] if joint else None,
        change=part,
    )
    steps, cuts = attempt.train().seconds()
    return steps * options.part + cuts


def cell(row: Row) -> tuple[str, str | None]:
    """Return task and budget."""
    return row["task"], row["budget"]


def folder_of(row: Row, runs: Path) -> Path:
    """Return the folder of a row's last training, as `Attempt.recipe` names it."""
    return runs / row["task"] / (row["budget"] or "all") / row["arm"] / f"{row['learning_rate']}-{row['seed']}"


def keep(what: str, task: str, budget: str, arm: str, seed: int, number: int, value: float, wide: float) -> None:
    """Append what was measured."""
    which = dict(zip(TIME_KEY, (what, task, budget, arm, seed, number), strict=True))
    time_rows().once(which, lambda: {"value": value, "share": value / wide})


class PartOfData:
    """A data set of which one of `every` images is trained on, and as few are validated on."""

    def __init__(self, whole: Any, every: int) -> None:
        self.whole, self.every = whole, every

    def __getattr__(self, name: str) -> Any:
        return getattr(self.whole, name)

    def train(self) -> "PartOfSplit":
        """Return a part of the training split."""
        return PartOfSplit(self.whole.train(), self.every)

    def validation(self) -> "PartOfSplit":
        """Return a part of the validation split."""
        return PartOfSplit(self.whole.validation(), self.every)


class PartOfSplit(Split):
    """One of `every` samples of a split."""

    def __init__(self, whole: Split, every: int) -> None:
        super().__init__(whole.seed)
        self.whole, self.every = whole, every

    def __len__(self) -> int:
        return len(self.whole) // self.every

    def sample(self, index: int) -> tuple[Tensor, Tensor]:
        """Return a sample of the whole split."""
        return self.whole.sample(index * self.every)

    def picture(self, index: int) -> Tensor:
        """Return a picture of the whole split."""
        return self.whole.picture(index * self.every)
