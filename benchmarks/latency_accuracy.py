"""Claim: at the same measured milliseconds, the network that the latency model's solution leaves is the more accurate.

    python benchmarks/latency_accuracy.py choose --data DATA --runs RUNS     alone on the machine
    python benchmarks/latency_accuracy.py tune --data DATA --runs RUNS

The trained wide networks are those of `frontier.py`, which are trained where they are not there yet. `choose`: each is
pruned to 50 and 30 % of its latency (ONNX Runtime, one thread) in two ways, `solved` (`prunus.select` with
`prunus.TargetMeter`, which models the latency and solves) and `by_macs` (the same call and measurements without the
model: multiply-adds are bounded, and the bound is searched for whose network is fast enough), importances and all else
equal; then the three networks are timed in turn. `tune`: each is trained for as long as the wide network was, the
learning rate chosen on the validation split (seed 0) among the same three, and tested once. What is done is a line of
results/latency_accuracy.jsonl, and is not done again. The summary is results/latency_accuracy.json.
"""

import argparse
import dataclasses
import itertools
from pathlib import Path
from typing import Any

import torch
from frontier_rows import Row, Rows, mean_and_error
from frontier_tasks import TASKS, add_options, recipe_of
from frontier_train import Trained, begun, fitted, walked
from result import RESULTS, write_result
from torch import Tensor, nn

import prunus
from prunus.budget.select import relative_norms
from prunus.deploy import BenchmarkSettings, benchmark

SHARES = (0.5, 0.3)
SOLVED, BY_MACS = ARMS = ("solved", "by_macs")
CHOICE_SEED = 0
KEY = ("kind", "task", "share", "arm", "seed", "learning_rate")


def rows() -> Rows:
    """Return what has been measured."""
    return Rows(RESULTS / "latency_accuracy.jsonl", KEY)


def wide_of(task: str, seed: int, options: argparse.Namespace) -> Trained:
    """Return the trained wide network, at the learning rate that `frontier.py` chose."""
    known = Rows(RESULTS / "frontier.jsonl", ()).read()
    rates = {row["learning_rate"] for row in known if (row["task"], row["arm"], row["split"]) == (task, "wide", "test")}
    (rate,) = rates
    folder = options.runs / task / "all" / "wide" / f"{rate}-{seed}"
    return walked(recipe_of(task, options.data, budget=None, rate=rate, seed=seed, folder=folder))


def folder_of(task: str, share: float, arm: str, seed: int, options: argparse.Namespace) -> Path:
    """Return the folder of a pruned network."""
    folder: Path = options.runs / task / f"latency={share}" / arm / str(seed)
    return folder


def choose(options: argparse.Namespace) -> None:
    """Prune the wide networks and time what is left, where that is not done yet."""
    for task, share, seed in itertools.product(options.tasks, SHARES, options.seeds):
        keys = [dict(zip(KEY, ("chosen", task, share, arm, seed, None), strict=True)) for arm in ARMS]
        if all(rows().find(key) for key in keys):
            continue
        wide = wide_of(task, seed, options)
        found = chosen(wide, share)
        settings = BenchmarkSettings(backends=("onnxruntime",), threads=1, repeats=100, measure_memory=False)
        shape = tuple(wide.run.inputs.shape[1:])
        timed = {record.model: record.median_ms for record in benchmark(deployed(found, wide), shape, settings)}
        for arm, key in zip(ARMS, keys, strict=True):
            plan, figures = found[arm]
            folder = folder_of(task, share, arm, seed, options)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "plan.json").write_text(plan.to_json(), encoding="utf-8")
            figures |= {"latency": timed[arm] / timed["wide"], "wide_ms": timed["wide"]}
            rows().once(key, lambda figures=figures: figures)  # type: ignore[misc]


def chosen(wide: Trained, share: float) -> dict[str, tuple[prunus.Plan, dict[str, Any]]]:
    """Return the plan of each arm, with the shares of multiply-adds and of importance that it leaves."""
    model, inputs = wide.model.eval(), wide.run.inputs
    groups = prunus.trace(model, inputs)
    meter = prunus.TargetMeter(prunus.Target(backend="onnxruntime", threads=1), inputs, reference=model, repeats=30)
    importance, found = relative_norms(model, groups), {}
    for arm, timed in ((SOLVED, meter), (BY_MACS, lambda network: meter(network))):
        plan = prunus.select(model, groups, budget=prunus.Budget(latency=share), meter=timed)
        narrow = prunus.trace(prunus.apply(plan, model), inputs)
        kept = 1 - float(importance[removed(plan, groups)].sum() / importance[groups.exact].sum())
        found[arm] = plan, {"macs": narrow.macs() / groups.macs(), "kept": kept}
    return found


def removed(plan: prunus.Plan, groups: prunus.ChannelGroups) -> Tensor:
    """Return the groups that a plan removes, bool [num_groups]."""
    gone, slots = torch.zeros(len(groups), dtype=torch.bool), {(s.path, s.dim): s.groups for s in groups.slots}
    for cut in itertools.chain.from_iterable(edit.cuts for edit in plan):  # type: ignore[attr-defined]
        gone[slots[cut.path, cut.dim][list(cut.remove)]] = True
    return gone


def deployed(found: dict[str, tuple[prunus.Plan, dict[str, Any]]], wide: Trained) -> dict[str, nn.Module]:
    """Return the networks, BatchNorm folded."""
    plans = {"wide": prunus.Plan(), **{arm: plan for arm, (plan, _) in found.items()}}
    networks = {name: prunus.apply(plan, wide.model).eval() for name, plan in plans.items()}
    inputs = wide.run.inputs
    return {name: prunus.apply(prunus.fuse(one, inputs), one).eval() for name, one in networks.items()}


def tune(options: argparse.Namespace) -> None:
    """Train what was chosen, and test each network once."""
    for task, share, arm in itertools.product(options.tasks, SHARES, ARMS):
        tried = {
            rate: tuned(task, share, arm, CHOICE_SEED, rate, "validation", options)["validation"]
            for rate in TASKS[task].rates
        }
        for seed in options.seeds:
            tuned(task, share, arm, seed, max(tried, key=lambda rate: tried[rate]), "test", options)
    write_summary(options)


def tuned(task: str, share: float, arm: str, seed: int, rate: float, split: str, options: argparse.Namespace) -> Row:
    """Return the row of a network that was pruned and is trained again."""

    def figures() -> Row:
        folder = folder_of(task, share, arm, seed, options)
        plan = prunus.Plan.from_json((folder / "plan.json").read_text(encoding="utf-8"))
        wide = wide_of(task, seed, options)
        run = begun(recipe_of(task, options.data, budget=None, rate=rate, seed=seed, folder=folder / str(rate)))
        settings = dataclasses.replace(run.recipe.train, warmup_epochs=0.0)
        trained = fitted(run, prunus.apply(plan, wide.model), settings=settings)
        metric = TASKS[task].metric
        return {name: trained.metrics(name)[metric] for name in dict.fromkeys(("validation", split))}

    return rows().once(dict(zip(KEY, (split, task, share, arm, seed, rate), strict=True)), figures)


def write_summary(options: argparse.Namespace) -> None:
    """Write means and standard errors over seeds, and of the difference seed by seed."""
    table, known = list[Row](), rows().read()
    for task, share in itertools.product(TASKS, SHARES):
        cell = [row for row in known if (row["task"], row["share"]) == (task, share)]
        summary: Row = {"task": task, "share": share}
        for name, kind, split in (
            ("latency", "chosen", "latency"),
            ("macs", "chosen", "macs"),
            ("kept", "chosen", "kept"),
            ("test", "test", "test"),
        ):
            values = {
                arm: {row["seed"]: row[split] for row in cell if (row["kind"], row["arm"]) == (kind, arm)}
                for arm in ARMS
            }
            shared = sorted(values[SOLVED].keys() & values[BY_MACS].keys())
            if shared:
                summary[name] = {arm: mean_and_error([values[arm][seed] for seed in shared]) for arm in ARMS}
                differences = [values[SOLVED][seed] - values[BY_MACS][seed] for seed in shared]
                summary[name]["solved - by_macs"] = mean_and_error(differences)
        if len(summary) > 2:
            table.append(summary)
    write_result("latency_accuracy", {"rows": table}, data=str(options.data))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = {"choose": choose, "tune": tune, "table": write_summary}
    parser.add_argument("command", choices=list(commands))
    add_options(parser, ["gtsrb", "cifar10"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    commands[options.command](options)


if __name__ == "__main__":
    main()
