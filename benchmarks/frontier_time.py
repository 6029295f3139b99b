"""The timing pass of `frontier.py`: milliseconds and training seconds, interleaved, on an idle machine.

Milliseconds: the files of all networks of a task and seed, including the wide one, are run in turn. Training seconds:
every arm trains for all its epochs on one in `--part` images, round after round; the seconds of its steps are scaled to
all images, those of its cuts are not. Both are stored relative to the wide network in the same round. Not counted: the
time that torch-pruning and `select` need for pruning, and the joint run that provides the architecture of "scratch".
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
REPEATS = 100


def time_rows() -> Rows:
    """Return the rows of the timings."""
    return Rows(RESULTS / "frontier-times.jsonl", TIME_KEY)


def which(what: str, row: Row, number: int) -> Row:
    """Return the key of a measurement of a tested row."""
    values = (what, row["task"], row["budget"], row["arm"], row["seed"], number)
    return dict(zip(TIME_KEY, values, strict=True))


def time_networks(tested: list[Row], options: argparse.Namespace) -> None:
    """Time the networks of each task and seed in turn, if any of them has no row yet."""
    together = defaultdict(list)
    for row in tested:
        if (folder_of(row, options.runs) / "network.onnx").exists():
            together[row["task"], row["seed"]].append(row)
        else:
            print(f"{folder_of(row, options.runs)} holds no network: train this row where it is to be timed")
    for (task, _), members in together.items():
        rows = {f"{row['budget']} {row['arm']}": row for row in members}
        wide = [name for name, row in rows.items() if row["arm"] == WIDE]
        if not wide or all(time_rows().find(which("ms", row, 0)) for row in members):
            continue
        files = {name: folder_of(row, options.runs) / "network.onnx" for name, row in rows.items()}
        shape = tuple(TASKS[task].recipe(options.data).data.validation()[0][0].shape)
        settings = BenchmarkSettings(backends=("onnxruntime",), threads=1, repeats=REPEATS, measure_memory=False)
        timed = {record.model: record.median_ms for record in benchmark(files, shape, settings)}
        for name, row in rows.items():
            figures = {"value": timed[name], "share": timed[name] / timed[wide[0]]}
            time_rows().once(which("ms", row, 0), lambda figures=figures: figures)  # type: ignore[misc]


def time_trainings(tested: list[Row], options: argparse.Namespace) -> None:
    """Train each arm of the rows from the start on a part of the images, round after round."""
    timed = [row for row in tested if not str(row["budget"]).startswith("latency")]  # they measure in training
    for number in range(options.rounds):
        wide: dict[str, float] = {}
        for row in sorted(timed, key=lambda row: row["arm"] != WIDE):
            if (found := time_rows().find(which("seconds", row, number))) is None:
                value = training_seconds(row, tested, options)
                share = value / wide[row["task"]] if row["arm"] != WIDE else 1.0
                figures = {"value": value, "share": share}
                found = time_rows().once(which("seconds", row, number), lambda figures=figures: figures)  # type: ignore[misc]
            if row["arm"] == WIDE:
                wide[row["task"]] = found["value"]


def training_seconds(row: Row, tested: list[Row], options: argparse.Namespace) -> float:
    """Return the seconds of training the row's arm on all images, extrapolated from a part of them."""

    def part(recipe: Recipe) -> Recipe:
        data: Any = PartOfData(recipe.data, options.part)
        return dataclasses.replace(recipe, data=data)

    def rate(budget: str | None, arm: str) -> float | None:
        cell = (row["task"], budget, arm)
        found = [each["learning_rate"] for each in tested if (each["task"], each["budget"], each["arm"]) == cell]
        return found[0] if found else None

    with tempfile.TemporaryDirectory() as folder:
        attempt = Attempt(
            task=row["task"],
            budget=row["budget"],
            arm=row["arm"],
            rate=row["learning_rate"],
            seed=row["seed"],
            data=options.data,
            runs=Path(folder),
            wide_rate=rate(None, WIDE),
            joint_rate=rate(row["budget"], "joint"),
            change=part,
        )
        steps, cuts = attempt.train().seconds()
    return steps * options.part + cuts


def folder_of(row: Row, runs: Path) -> Path:
    """Return the folder of a row's last training, as `Attempt.recipe` names it."""
    folder: Path = runs / row["task"] / (row["budget"] or "all") / row["arm"] / f"{row['learning_rate']}-{row['seed']}"
    return folder


class PartOfData:
    """A data set reduced to one in `every` training images, and as few validation images."""

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
    """One in `every` samples of a split."""

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
