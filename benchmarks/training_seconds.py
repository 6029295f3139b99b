"""Claim: at equal accuracy, training with shrinking takes much less time than the wide network's equal epochs.

    python benchmarks/training_seconds.py recipes/gtsrb_small.yaml --seeds 0 1 --cores 0 1 \\
        --override data.root=DATA shrink.begin=0.1 shrink.end=0.4
    python benchmarks/training_seconds.py recipes/camvid_erfnet.yaml \\
        --override data.root=DATA train.device=cuda shrink.begin=0.1 shrink.end=0.4

Both networks of a recipe are trained with the same training settings and epochs, the wide one first. The claim is about
early cuts, the fast setting of docs/methods/group_lasso.md; the default shrinks later, for accuracy. The `--cores`
train their own seeds at the same time, under the same conditions, on an otherwise idle machine. A stopped benchmark
resumes. Seconds are wall time of training steps, of choosing groups to shrink, and of cuts. The realised share is the
saved time over the ideal, the saved MACs averaged over the epochs. Accuracy is the main metric on the test split.
"""

import argparse
import concurrent.futures
import itertools
import json
import multiprocessing
import os
import statistics
from pathlib import Path
from typing import Any

import torch
from result import write_result

from prunus import records
from prunus.pipeline import Recipe, Watch, stages
from prunus.pipeline.context import RunContext
from prunus.recipe import load
from prunus.records import EpochRecord, Recorder
from prunus.train.evaluate import evaluate
from prunus.train.fit import fit


def trained(recipe: Recipe, name: str, folder: Path) -> dict[str, Any]:
    """Train the network `name`, "wide" or "narrow", and return its cost and its accuracy."""
    task, inputs = recipe.task.bind(recipe.data), recipe.data.train()[0][0][None]
    run = RunContext(recipe=recipe, folder=folder, recorder=Recorder(folder), task=task, inputs=inputs, watch=Watch())
    training = run.training(name, recipe.train, task)
    fitted = fit(training, stages.build_wide(run), inputs, recipe.shrink if name == "narrow" else None)
    metrics, _ = evaluate(fitted.model, task, recipe.data.test(), recipe.train)
    epochs = [r for r in records.read(folder) if isinstance(r, EpochRecord) and r.model == name]
    return {
        "seconds": fitted.seconds,
        "metric": metrics[task.main_metric],
        "macs": [record.macs for record in epochs],
        "epoch_seconds": [record.seconds for record in epochs],
    }


def compared(wide: dict[str, Any], narrow: dict[str, Any]) -> dict[str, float]:
    """Return the cost of the narrow network's training relative to the wide network's."""
    before = [wide["macs"][0], *narrow["macs"][:-1]]  # a record holds the MACs after the epoch's cut
    ideal = 1 - statistics.mean(before) / wide["macs"][0]
    saved = 1 - narrow["seconds"] / wide["seconds"]
    return {
        "seconds_saved": saved,
        "macs_saved": ideal,
        "realised": saved / ideal,
        "metric_points": 100 * (narrow["metric"] - wide["metric"]),
    }


def seeds_of(core: int | None, seeds: list[int], options: argparse.Namespace) -> list[dict[str, Any]]:
    """Train both networks with each of `seeds` on one core (None: the whole machine)."""
    if core is not None:
        os.sched_setaffinity(0, {core})
        torch.set_num_threads(1)
    runs = []
    for seed in seeds:
        recipe = load(Recipe, options.recipe, [*options.override, f"seed={seed}"])
        folder = options.runs / recipe.name / str(seed)
        both = {name: trained(recipe, name, folder) for name in ("wide", "narrow")}
        runs.append({"seed": seed, **both, "compared": compared(both["wide"], both["narrow"])})
        print(json.dumps(runs[-1]["compared"]), flush=True)
    return runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--cores", type=int, nargs="+", default=[None], help="without: the whole machine, as for a GPU")
    parser.add_argument("--runs", type=Path, default=Path("runs/training_seconds"))
    parser.add_argument("--override", nargs="*", default=[], help="key=value of the recipe")
    options = parser.parse_args()
    shares = [options.seeds[first :: len(options.cores)] for first in range(len(options.cores))]
    with concurrent.futures.ProcessPoolExecutor(len(shares), multiprocessing.get_context("spawn")) as pool:
        done = list(pool.map(seeds_of, options.cores, shares, [options] * len(shares)))
    runs = sorted(itertools.chain(*done), key=lambda run: options.seeds.index(run["seed"]))
    mean = {key: statistics.mean(run["compared"][key] for run in runs) for key in runs[0]["compared"]}
    roots = [item.removeprefix("data.root=") for item in options.override if item.startswith("data.root=")]
    figures = {"mean": mean, "runs": runs}
    path = write_result(f"training_seconds-{options.recipe.stem}", figures, data=roots[0] if roots else "")
    print(f"{path}: {json.dumps(mean)}")


if __name__ == "__main__":
    main()
