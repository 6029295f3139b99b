"""When to shrink: `begin` and `end` of the recipe's `shrink`, chosen on the validation split.

    python benchmarks/frontier_begin_end.py --data DATA [--only gtsrb:macs=0.1 ...] [--seeds 0 1] [--runs FOLDER]

Runs the joint training of a recipe, exactly as a user does, for each pair (begin, end): the shares of the training at
which the first penalty acts and the budget is met. The test split is not read. Rows are appended to
results/frontier-begin-end.jsonl, so a stopped benchmark resumes; the table and its header are rewritten after each row.
"""

import argparse
import dataclasses
import itertools
from pathlib import Path

import torch
from frontier_rows import Row, Rows, mean_and_error, told
from frontier_tasks import TASKS, recipe_of
from frontier_train import walked
from result import RESULTS, header, write_result

from prunus import trace
from prunus.budget.controller import Controller
from prunus.pipeline import stages

NAME = "frontier-begin-end"
PAIRS = ((0.1, 0.4), (0.25, 0.6), (0.4, 0.7))
CELLS = ("gtsrb:macs=0.1", "gtsrb:macs=0.3", "camvid:macs=0.15")
KEY = ("task", "budget", "begin", "end", "seed")


def measured(which: Row, data: Path, runs: Path) -> Row:
    """Train the joint run; return its figures on the validation split."""
    name = "-".join(str(value) for value in which.values())
    recipe = recipe_of(which["task"], data, budget=which["budget"], rate=None, seed=which["seed"], folder=runs / name)
    assert recipe.shrink is not None
    shrink = dataclasses.replace(recipe.shrink, begin=which["begin"], end=which["end"])
    trained = walked(dataclasses.replace(recipe, shrink=shrink))
    wide = trace(stages.build_wide(trained.run), trained.run.inputs).macs()
    return {
        "validation": trained.metrics("validation")[TASKS[which["task"]].metric],
        "macs": trained.macs(),
        "macs_share": trained.macs() / wide,
        "mean_macs_share": trained.mean_macs() / wide,
        "epochs": recipe.train.epochs,
        "learning_rate": recipe.train.optimizer.learning_rate,
    }


def table(rows: list[Row]) -> str:
    """Return a table with a line for each pair of shares and a column for each task and budget."""
    cells = list(dict.fromkeys((row["task"], row["budget"]) for row in rows))
    heads = [f"{task}, {budget}" for task, budget in cells]
    lines = [f"| begin, end | {' | '.join(heads)} | MACs of a training step, mean, of the wide one's |"]
    lines.append("|---" * (len(cells) + 2) + "|")
    for begin, end in PAIRS:
        own = [row for row in rows if (row["begin"], row["end"]) == (begin, end)]
        texts = []
        for cell in cells:
            found = sorted((row for row in own if (row["task"], row["budget"]) == cell), key=lambda row: row["seed"])
            values = [row["validation"] for row in found]
            each = ", ".join(f"{100 * value:.1f}" for value in values)
            texts.append(f"{told(values)} ({each})" if values else "not run")
        shares = [
            f"{task}, {budget}: {100 * mean_and_error(values)[0]:.0f} %"
            for task, budget in cells
            if (values := [r["mean_macs_share"] for r in own if (r["task"], r["budget"]) == (task, budget)])
        ]
        lines.append(f"| {begin}, {end} | {' | '.join(texts)} | {'; '.join(shares)} |")
    return "\n".join(lines) + "\n"


def compared(rows: list[Row]) -> list[str]:
    """Return each pair's lead over the default, averaged over the cells and seeds that both have."""
    default = Controller().shares
    values = {(row["begin"], row["end"], row["task"], row["budget"], row["seed"]): row["validation"] for row in rows}
    lines = []
    for pair in PAIRS:
        others = {which[2:]: value for which, value in values.items() if which[:2] == pair}
        found = [value - values[*default, *cell] for cell, value in others.items() if (*default, *cell) in values]
        if pair != default and found:
            mean, error = mean_and_error(found)
            spread = "" if error is None else f" ± {100 * error:.1f}"
            lines.append(f"{pair[0]}, {pair[1]} minus {default[0]}, {default[1]}: {100 * mean:+.1f}{spread} points")
    return lines


def written(rows: list[Row], data: str) -> None:
    """Write the table and the figures behind it."""
    write_result(NAME, {"split": "validation", "rows": rows}, data=data)
    about = header(data)
    text = (
        "# When to shrink\n\n"
        "Validation split, in %: top-1 (GTSRB) or mIoU (CamVid), mean ± standard error over seeds, each seed in "
        "brackets. The last column is what the steps cost in multiply-adds, averaged over the epochs; seconds were not "
        "timed.\n\n"
        f"{table(rows)}\n"
        f"Run by run, mean ± standard error: {'; '.join(compared(rows))}. Where two differ by less than that, the one "
        "that trains faster is the default.\n\n"
        f"{about['date']}, `{about['command']}`; {', '.join(f'{k} {v}' for k, v in about['versions'].items())}; "
        f"{', '.join(f'{k} {v}' for k, v in about['hardware'].items())}\n"
    )
    (RESULTS / f"{NAME}.md").write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--only", nargs="+", default=list(CELLS), choices=list(CELLS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--runs", type=Path, default=Path("runs/frontier-begin-end"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = Rows(RESULTS / f"{NAME}.jsonl", KEY)
    for seed, cell, (begin, end) in itertools.product(options.seeds, options.only, PAIRS):
        task, budget = cell.split(":")
        which = dict(zip(KEY, (task, budget, begin, end, seed), strict=True))
        rows.once(which, lambda which=which: measured(which, options.data, options.runs))  # type: ignore[misc]
        written(rows.read(), str(options.data))


if __name__ == "__main__":
    main()
