"""The table and the picture of `frontier.py`, from the rows so far."""

import importlib.metadata
import statistics
from collections.abc import Sequence
from typing import Any

from frontier_arms import ARMS, ONCE, OURS_TWICE, TWICE, WIDE, WIDE_LONG
from frontier_picture import picture
from frontier_rows import Row, mean_and_error, told
from frontier_tasks import BUDGETS, TASKS
from frontier_time import time_rows
from result import RESULTS, header, write_result

NAME = "frontier"


def write_table(rows: Sequence[Row], data: str) -> None:
    """Write frontier.json, frontier.md and frontier.svg."""
    cells = {
        f"{task}, {budget}, {arm}": found
        for task in TASKS
        for budget, arm in ((None, WIDE), (None, WIDE_LONG), *((budget, arm) for budget in BUDGETS for arm in ARMS))
        if (found := cell(rows, task, budget, arm))
    }
    write_result(NAME, {"cells": cells}, data=data)
    about, absent = header(data), [arm for arm in ARMS if not columns(rows, [arm])]
    lines = [
        "# Prunus and what a user would do instead",
        "",
        "Test top-1 (GTSRB, CIFAR-10) or mIoU (CamVid) in %, mean ± standard error over seeds; all arms of a table",
        "with the same epochs and batch, the learning rate chosen on the validation split. The last row is joint,",
        "or started, minus the best rival of the column, seed by seed, ± its standard error. What an arm is:",
        "benchmarks/frontier_arms.py. An empty place has not been run.",
        *([f"Not run at all: {', '.join(absent)}."] if absent else []),
        "",
        "As many epochs as the wide network:",
        "",
        *accuracies(rows, ONCE, "joint", WIDE),
        "",
        "Twice as many, the wide network's training among them:",
        "",
        *accuracies(rows, TWICE, "started", WIDE_LONG),
        "",
        "What they cost, in % of the wide network's: multiply-adds that were reached / milliseconds (ONNX Runtime, one",
        "thread) / training seconds; `-` was not timed.",
        "",
        *costs(rows),
        "",
        "![the same as a picture](frontier.svg)",
        "",
        f"{about['date']}, `{about['command']}`; {listed(about['versions'])}; {listed(about['hardware'])}; "
        f"torch-pruning {importlib.metadata.version('torch-pruning')}. Rows: frontier.jsonl"
        f"{', frontier-times.jsonl' if time_rows().read() else ''}.",
    ]
    (RESULTS / f"{NAME}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (RESULTS / f"{NAME}.svg").write_text(picture(rows), encoding="utf-8")


def listed(about: dict[str, str]) -> str:
    """Return names and values in one line."""
    return ", ".join(f"{name} {value}" for name, value in about.items())


def tested(rows: Sequence[Row], task: str, budget: str | None, arm: str) -> dict[int, Row]:
    """Return the tested rows of a cell by seed."""
    found = [row for row in rows if row["split"] == "test"]
    which = (task, budget, arm)
    return {row["seed"]: row for row in found if (row["task"], row["budget"], row["arm"]) == which}


def cell(rows: Sequence[Row], task: str, budget: str | None, arm: str) -> dict[str, Any] | None:
    """Return the figures of a cell, averaged over its seeds; None if it has not been run."""
    own = tested(rows, task, budget, arm)
    if not own:
        return None
    wide = tested(rows, task, None, WIDE)
    mean, error = mean_and_error([row["test"] for row in own.values()])
    times = [row for row in time_rows().read() if (row["task"], row["budget"], row["arm"]) == (task, budget, arm)]
    shares = {what: [row["share"] for row in times if row["what"] == what] for what in ("ms", "seconds")}
    whole = statistics.mean(row["macs"] for row in wide.values()) if wide else None
    return {
        "test": mean,
        "standard_error": error,
        "seeds": sorted(own),
        "learning_rate": next(iter(own.values()))["learning_rate"],
        "macs_share": statistics.mean(row["macs"] for row in own.values()) / whole if whole else None,
        "ms_share": statistics.median(shares["ms"]) if shares["ms"] else None,
        "seconds_share": statistics.median(shares["seconds"]) if shares["seconds"] else None,
    }


def columns(rows: Sequence[Row], arms: Sequence[str]) -> list[tuple[str, str]]:
    """Return the tasks and budgets for which one of `arms` was run."""
    places = [(task, budget) for task in TASKS for budget in BUDGETS]
    return [place for place in places if any(tested(rows, *place, arm) for arm in arms)]


def accuracies(rows: Sequence[Row], arms: Sequence[str], ours: str, whole: str) -> list[str]:
    """Return the table of test metrics: a row per arm that was run, first the network `whole`, last the lead of the arm
    `ours`; a column per task and budget."""
    places = columns(rows, arms)
    metrics = {
        arm: [told([row["test"] for row in tested(rows, *place, arm).values()]) for place in places] for arm in arms
    }
    others = [arm for arm in arms if arm not in (ours, *OURS_TWICE)]
    return [
        f"| arm | {' | '.join(', '.join(place) for place in places)} |",
        "|---" * (len(places) + 1) + "|",
        line(whole, [told([row["test"] for row in tested(rows, task, None, whole).values()]) for task, _ in places]),
        *(line(f"**{arm}**" if arm == ours else arm, texts) for arm, texts in metrics.items() if any(texts)),
        line(f"{ours} - best other", [lead(rows, *place, ours, others) for place in places]),
    ]


def line(first: str, texts: Sequence[str]) -> str:
    """Return a line of a table."""
    return f"| {first} | {' | '.join(texts)} |"


def lead(rows: Sequence[Row], task: str, budget: str, ours: str, others: Sequence[str]) -> str:
    """Return the lead of an arm over the best of others, over the seeds that both have."""
    own = tested(rows, task, budget, ours)
    theirs = {arm: tested(rows, task, budget, arm) for arm in others}
    means = {arm: statistics.mean(row["test"] for row in found.values()) for arm, found in theirs.items() if found}
    if not own or not means:
        return ""
    best = max(means, key=lambda arm: means[arm])
    differences = [own[seed]["test"] - theirs[best][seed]["test"] for seed in own if seed in theirs[best]]
    if not differences:
        return ""
    mean, error = mean_and_error(differences)
    spread = "" if error is None else f" ± {100 * error:.1f}"
    return f"{100 * mean:+.1f}{spread} ({best})"


def costs(rows: Sequence[Row]) -> list[str]:
    """Return the table of multiply-adds, milliseconds and training seconds, a row per arm that was run."""
    places = columns(rows, ARMS)
    found = {arm: [_shares(cell(rows, *place, arm)) for place in places] for arm in ARMS}
    head = [f"| arm | {' | '.join(', '.join(place) for place in places)} |", "|---" * (len(places) + 1) + "|"]
    return [*head, *(line(arm, texts) for arm, texts in found.items() if any(texts))]


def _shares(found: dict[str, Any] | None) -> str:
    if found is None:
        return ""
    values = [found[name] for name in ("macs_share", "ms_share", "seconds_share")]
    return " / ".join("-" if value is None else f"{100 * value:.0f}" for value in values)
