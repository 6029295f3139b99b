"""Claim: on CamVid's test images, ERFNet shrunk to 40 % of its MACs keeps the wide network's mIoU, and trains faster.

    python benchmarks/camvid.py --root DATA [--size 120 160] [--epochs 30] [--seeds 0 1] [--threads 1] [--device auto]

Runs `recipes/camvid_erfnet.yaml` once per seed: wide and shrinking network with the same training settings. Writes one
JSON file with all figures, settings, versions, hardware and command to benchmarks/results/.
"""

import argparse
import dataclasses
import itertools
import json
import statistics
import time
from pathlib import Path

from result import write_result

import prunus
from prunus import records
from prunus.pipeline import Recipe, Watch
from prunus.recipe import load

HERE = Path(__file__).parent


def overrides(options: argparse.Namespace, seed: int, output: str) -> list[str]:
    """Return the changes to the recipe."""
    chosen = {
        "data.root": options.root,
        "data.size": list(options.size),
        "train.epochs": options.epochs,
        "train.evaluate_every": options.epochs,
        "train.device": options.device,
        "train.precision": options.precision,
        "seed": seed,
        "output": output,
        "start": "fresh",  # the claim compares two trainings with the same start
    }
    if options.threads:
        chosen["train.threads"] = options.threads
        chosen["deploy.benchmark.threads"] = options.threads
    return [f"{key}={value}" for key, value in chosen.items()] + options.override


def train(options: argparse.Namespace, seed: int, folder: Path) -> None:
    """Run or resume one training; store this process's processor seconds per stage."""
    recipe = load(Recipe, HERE.parent / "recipes/camvid_erfnet.yaml", overrides(options, seed, str(folder)))
    stages: list[tuple[str, float]] = []
    watch = Watch(
        stage=lambda text: stages.append((text, time.process_time())), epoch=lambda record: print(record, flush=True)
    )
    prunus.run(recipe, watch=watch)
    spent = {text: end - begin for (text, begin), (_, end) in itertools.pairwise(stages) if "training" in text}
    (folder / "cpu_seconds.json").write_text(json.dumps(spent), encoding="utf-8")


def figures(folder: Path, seed: int) -> dict[str, object]:
    """Return the figures of one run."""
    found = records.read(folder)
    result: dict[str, object] = {"seed": seed}
    if (folder / "cpu_seconds.json").exists():
        result["cpu_seconds"] = json.loads((folder / "cpu_seconds.json").read_text(encoding="utf-8"))
    for record in found:
        if isinstance(record, records.EvaluationRecord):
            result[record.model] = dataclasses.asdict(record)
        if isinstance(record, records.RemovalRecord):
            result["removal"] = dataclasses.asdict(record)
    latencies = [record for record in found if isinstance(record, records.LatencyRecord)]
    result["latency"] = [dataclasses.asdict(record) for record in latencies]
    result["parity"] = [dataclasses.asdict(record) for record in found if isinstance(record, records.ParityRecord)]
    result["shrinks"] = [dataclasses.asdict(record) for record in found if isinstance(record, records.ShrinkRecord)]
    return result


def ratios(run: dict[str, object]) -> dict[str, float]:
    """Return the figures of the narrow network relative to the wide network."""
    wide, narrow = run["wide"], run["narrow"]
    assert isinstance(wide, dict) and isinstance(narrow, dict)
    result = {
        "miou_points": 100 * (narrow["metrics"]["miou"] - wide["metrics"]["miou"]),
        "wide_miou": 100 * wide["metrics"]["miou"],
        "narrow_miou": 100 * narrow["metrics"]["miou"],
        "macs": narrow["macs"] / wide["macs"],
        "params": narrow["params"] / wide["params"],
        "training_seconds": narrow["training_seconds"] / wide["training_seconds"],
    }
    if cpu := run.get("cpu_seconds"):  # of this process, unaffected by other processes on the machine
        result["training_cpu_seconds"] = cpu["training the shrinking network"] / cpu["training the wide network"]  # type: ignore[index]
    latency = {(item["backend"], item["model"]): item["median_ms"] for item in run["latency"]}  # type: ignore[attr-defined]
    for backend in {backend for backend, _ in latency}:
        result[f"latency_{backend}"] = latency[backend, "narrow"] / latency[backend, "wide"]
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True, help="CamVid in SegNet's layout")
    parser.add_argument("--size", type=int, nargs=2, default=(120, 160), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--runs", type=Path, default=Path("runs/camvid"), help="folder of the runs, a seed each")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument("--override", nargs="*", default=[], help="further key=value of the recipe")
    options = parser.parse_args()
    runs = []
    for seed in options.seeds:
        folder = options.runs / str(seed)
        if not (folder / "report.html").exists():
            train(options, seed, folder)
        runs.append(figures(folder, seed))
        runs[-1]["narrow_vs_wide"] = ratios(runs[-1])
        print(json.dumps(runs[-1]["narrow_vs_wide"]), flush=True)
    compared = [run["narrow_vs_wide"] for run in runs]
    mean = {key: statistics.mean(item[key] for item in compared) for key in compared[0]}  # type: ignore[index,union-attr]
    result = {
        "size": list(options.size),
        "epochs": options.epochs,
        "mean": mean,
        "runs": runs,
    }
    seeds = "-".join(str(seed) for seed in options.seeds)
    name = f"camvid-{options.size[1]}x{options.size[0]}-{options.epochs}epochs-seed{seeds}"
    path = write_result(name, result, folder=options.out, data=options.root)
    print(f"{path}: {json.dumps(mean)}")


if __name__ == "__main__":
    main()
