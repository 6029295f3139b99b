"""The value of a start from trained weights: GTSRB, shrunk to a budget in a third of the epochs, and from scratch.

    python benchmarks/pretrained_start.py --data DATA/gtsrb_small --folder runs/pretrained

Per seed, on the validation and the test split: the wide network, trained for the recipe's epochs ("long"); from its
weights, shrunk to the budget in a third of the epochs, as by `prunus shrink` ("pretrained"), and also with the wide
network as teacher ("pretrained, taught"); from fresh weights, shrunk in a third of the epochs ("scratch, a third"), and
in the epochs of both trainings together ("scratch, all"). Each row is stored when it is finished.
"""

import argparse
import dataclasses
import math
from pathlib import Path
from typing import Any

from frontier_rows import Row, Rows, mean_and_error
from frontier_train import Trained, walked
from result import RESULTS, write_result

import prunus
from prunus import recipe as recipes
from prunus.pipeline import Recipe
from prunus.tasks.distillation import Distillation

LONG, PRETRAINED, TAUGHT, SCRATCH, ALL = ARMS = (
    "long",
    "pretrained",
    "pretrained, taught",
    "scratch, a third",
    "scratch, all",
)


def main() -> None:
    options = _options()
    options.folder.mkdir(parents=True, exist_ok=True)
    rows = Rows(options.folder / "rows.jsonl", ("seed", "arm"))
    for seed in range(options.seeds):
        planned = arms(options, seed)
        for arm, recipe in planned.items():
            rows.once({"seed": seed, "arm": arm}, lambda recipe=recipe, long=planned[LONG]: figures(recipe, long))  # type: ignore[misc]
    summary = {arm: _summary([row for row in rows.read() if row["arm"] == arm]) for arm in ARMS}
    settings = {name: getattr(options, name) for name in ("epochs", "macs", "seeds")}
    write_result(
        "pretrained_start",
        {"settings": settings, "arms": summary, "rows": rows.read()},
        folder=options.results,
        data=str(options.data),
    )


def arms(options: argparse.Namespace, seed: int) -> dict[str, Recipe]:
    """Return the recipe of each arm, in the order in which they are trained."""
    base = recipes.load(Recipe, Path(options.recipe), [f"data.root={options.data}", f"seed={seed}", "baseline=false"])
    long = options.epochs or base.train.epochs
    short = math.ceil(long / 3)
    assert base.shrink is not None
    shrink = dataclasses.replace(base.shrink, budget=prunus.Budget(macs=options.macs, multiple_of=4))

    def arm(name: str, epochs: int, **changes: Any) -> Recipe:
        folder = str(options.folder / f"seed{seed}" / name.replace(", ", "-").replace(" ", "-"))
        train = dataclasses.replace(base.train, epochs=epochs)
        return dataclasses.replace(base, output=folder, train=train, **changes)

    return {
        LONG: arm(LONG, long, shrink=None),
        PRETRAINED: arm(PRETRAINED, short, shrink=shrink, baseline=True),
        TAUGHT: arm(TAUGHT, short, shrink=shrink, baseline=True, distillation=Distillation()),
        SCRATCH: arm(SCRATCH, short, shrink=shrink),
        ALL: arm(ALL, long + short, shrink=shrink),
    }


def figures(recipe: Recipe, long: Recipe) -> Row:
    """Train a recipe, after the training of `long` if it has a baseline, and return the row."""
    trained: Trained = walked(recipe, walked(long) if recipe.baseline else None)
    steps, cuts = dataclasses.replace(trained, folders=trained.folders[-1:]).seconds()
    metric = trained.run.task.main_metric
    return {
        "epochs": recipe.train.epochs,
        "validation": trained.metrics("validation")[metric],
        "test": trained.metrics("test")[metric],
        "macs": trained.macs(),
        "seconds": steps + cuts,
    }


def _summary(rows: list[Row]) -> dict[str, Any]:
    result = dict[str, Any]()
    for name in ("validation", "test", "macs", "seconds"):
        mean, error = mean_and_error([row[name] for row in rows])
        result[name] = {"mean": mean, "standard_error": error, "seeds": [row[name] for row in rows]}
    return result


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="gtsrb_small")
    parser.add_argument("--folder", type=Path, required=True, help="of trainings and rows; the same one goes on")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--recipe", default=str(Path(__file__).parents[1] / "recipes" / "gtsrb_small.yaml"))
    parser.add_argument("--epochs", type=int, default=None, help="of the long training; the recipe's")
    parser.add_argument("--macs", type=float, default=0.2, help="the budget, as a share")
    parser.add_argument("--seeds", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    main()
