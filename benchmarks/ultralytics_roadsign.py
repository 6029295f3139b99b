"""YOLO in size n on 877 photographs of road signs, in Ultralytics' trainer: wide, shrunk in training, and pruned.

    python benchmarks/ultralytics_roadsign.py --data DATA/roadsign_voc --folder runs/roadsign
    python benchmarks/ultralytics_roadsign.py --data DATA/roadsign_voc --folder runs/roadsign --time   (alone)

Per seed: the wide network; the same with `Shrink`, to half of its ONNX Runtime latency, by multiply-adds ("narrow") and
by the latency model ("narrow, solved"); the wide network after half of the epochs, pruned once by torch-pruning to that
latency and fine-tuned for the other half. All start from fresh weights and have equally many epochs. Each row is stored
when it is finished; the same command resumes. `--time` measures the best networks of all arms and seeds in turn, on a
quiet machine.

    pip install ultralytics-opencv-headless==8.4.190 torch-pruning==1.6.1
"""

import argparse
import copy
import itertools
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("YOLO_OFFLINE", "true")

import torch
from frontier_rows import Row, Rows, mean_and_error
from frontier_train import BISECTIONS
from result import RESULTS, write_result
from roadsign_yolo import yolo_set
from split_blocks import split_
from torch import nn
from ultralytics import YOLO
from ultralytics.nn.tasks import DetectionModel

import prunus
from prunus.deploy import benchmark
from prunus.deploy.latency_meter import LatencyMeter
from prunus.integrations.ultralytics import Shrink

WIDE, NARROW, SOLVED, PRUNED = ARMS = "wide", "narrow", "narrow, solved", "torch-pruning, once"
LATENCY = 0.5  # of the wide network's
AIMED = 0.48  # the target, with a margin since measurements vary


def main() -> None:
    options = _options()
    options.folder.mkdir(parents=True, exist_ok=True)
    data = yolo_set(options.data, options.folder / "set", options.limit)
    rows = Rows(options.folder / "rows.jsonl", ("seed", "arm"))
    trainings = dict(zip(ARMS, (wide, narrow, solved, pruned), strict=True))
    for seed, arm in [] if options.time else itertools.product(options.seeds, options.arms):
        train = trainings[arm]
        rows.once({"seed": seed, "arm": arm}, lambda train=train, seed=seed: figures(train, options, data, seed))  # type: ignore[misc]
    trained = {arm: [row for row in rows.read() if row["arm"] == arm] for arm in ARMS}
    arms = {arm: _summary(found) for arm, found in trained.items() if found}
    settings = {name: getattr(options, name) for name in ("yaml", "size", "epochs", "batch", "seeds", "limit")}
    timed = {"timed_in_turn": timed_in_turn(options)} if options.time else {}
    write_result(
        f"ultralytics_roadsign-{options.epochs}epochs",
        {"settings": settings, "arms": arms, **timed, "rows": rows.read()},
        folder=options.results,
        data=str(options.data),
    )


def figures(train: Callable[..., Path], options: argparse.Namespace, data: Path, seed: int) -> Row:
    """Return the row of a training: the best checkpoint's metrics and its cost."""
    began = time.perf_counter()
    best = train(options, data, seed)
    seconds = time.perf_counter() - began
    found = YOLO(best).val(data=str(data), imgsz=options.size, device="cpu", plots=False, verbose=False, workers=0)
    network = YOLO(best).model.float()
    example = torch.zeros(1, 3, options.size, options.size)
    return {
        "map50": float(found.box.map50),
        "map50_95": float(found.box.map),
        "macs": prunus.trace(network, example).macs(),
        "params": sum(parameter.numel() for parameter in network.parameters()),
        "seconds": seconds,
    }


def timed_in_turn(options: argparse.Namespace) -> dict[str, dict[int, float]]:
    """Return, by arm and seed, the share of the wide network's latency that each best network takes."""
    names = {WIDE: WIDE, NARROW: NARROW, SOLVED: SOLVED, PRUNED: "tuned"}
    files = {
        (arm, seed): options.folder / f"seed{seed}" / name / "weights" / "best.pt"
        for arm, name in names.items()
        for seed in options.seeds
    }
    files = {key: file for key, file in files.items() if file.exists()}
    networks = {f"{arm} {seed}": deployed(YOLO(file), options) for (arm, seed), file in files.items()}
    settings = prunus.BenchmarkSettings(backends=("onnxruntime",), threads=1, repeats=100, measure_memory=False)
    timed = {each.model: each.median_ms for each in benchmark(networks, (3, options.size, options.size), settings)}
    whole = timed[f"{WIDE} {options.seeds[0]}"]
    return {arm: {seed: timed[f"{arm} {seed}"] / whole for one, seed in files if one == arm} for arm in names}


def deployed(yolo: Any, options: argparse.Namespace) -> nn.Module:
    """Return the network of a checkpoint as it is deployed, BatchNorm folded."""
    network: nn.Module = yolo.model.float().eval()
    example = torch.zeros(1, 3, options.size, options.size)
    return prunus.apply(prunus.fuse(network, example), network).eval()


def wide(options: argparse.Namespace, data: Path, seed: int) -> Path:
    """Train the network as built from its YAML file."""
    return _trained(YOLO(options.yaml), options, data, seed, WIDE, options.epochs)


def narrow(options: argparse.Namespace, data: Path, seed: int) -> Path:
    """Train the network with `Shrink`."""
    yolo = YOLO(options.yaml)
    budget = prunus.Budget(latency=AIMED)
    Shrink(budget=budget, begin=options.begin, end=options.end, meter=_meter(options)).attach(yolo)
    return _trained(yolo, options, data, seed, NARROW, options.epochs)


def solved(options: argparse.Namespace, data: Path, seed: int) -> Path:
    """Train it with `Shrink`, which solves for the milliseconds with a model of the latency."""
    yolo = YOLO(options.yaml)
    target = prunus.Target(backend="onnxruntime", threads=1, table=options.folder / "units.json")
    example = torch.zeros(1, 3, options.size, options.size)
    meter = prunus.TargetMeter(target, example, reference=_wide_network(options), repeats=options.repeats)
    budget = prunus.Budget(latency=AIMED, solver="exact", target=target)
    Shrink(budget=budget, begin=options.begin, end=options.end, meter=meter).attach(yolo)
    return _trained(yolo, options, data, seed, SOLVED, options.epochs)


def pruned(options: argparse.Namespace, data: Path, seed: int) -> Path:
    """Train for half of the epochs, prune once with torch-pruning, and fine-tune for the other half."""
    half = options.epochs // 2
    best = _trained(YOLO(options.yaml), options, data, seed, "half", half)
    small = _pruned_to_latency(YOLO(best).model.float(), options)

    def give(trainer: Any) -> None:
        def get_model(cfg: Any = None, weights: Any = None, verbose: bool = True) -> nn.Module:
            return copy.deepcopy(small)

        trainer.get_model = get_model

    yolo = YOLO(options.yaml)
    yolo.add_callback("on_pretrain_routine_start", give)
    return _trained(yolo, options, data, seed, "tuned", options.epochs - half)


def _pruned_to_latency(model: nn.Module, options: argparse.Namespace) -> nn.Module:
    """Return the widest network that meets the latency, with the same share of channels cut in all layers."""
    meter = _meter(options)
    bound, low, high = AIMED * meter(_wide_network(options)), 0.0, 1.0
    found = None
    for _ in range(min(BISECTIONS, options.bisections)):
        ratio = (low + high) / 2
        small = _pruned(model, ratio, options.size)
        if meter(small) <= bound:
            found, high = small, ratio
        else:
            low = ratio
    if found is None:
        raise SystemExit("torch-pruning reaches the latency with none of the ratios that were tried")
    return found


def _pruned(model: nn.Module, ratio: float, size: int) -> nn.Module:
    import torch_pruning

    model = copy.deepcopy(model).train()
    split_(model)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    pruner = torch_pruning.pruner.BasePruner(
        model,
        torch.zeros(1, 3, size, size),
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=ratio,
        ignored_layers=[model.model[-1]],  # type: ignore[index]
    )
    pruner.step()
    return model


def _trained(yolo: Any, options: argparse.Namespace, data: Path, seed: int, name: str, epochs: int) -> Path:
    """Train; return the path of the best checkpoint."""
    yolo.train(
        data=str(data),
        epochs=epochs,
        imgsz=options.size,
        batch=options.batch,
        seed=seed,
        device="cpu",
        amp=False,
        pretrained=False,
        plots=False,
        workers=0,
        cache="ram",
        patience=0,
        project=str((options.folder / f"seed{seed}").resolve()),
        name=name,
        exist_ok=True,
        verbose=False,
    )
    return Path(yolo.trainer.best)


def _wide_network(options: argparse.Namespace) -> nn.Module:
    torch.manual_seed(0)
    classes = (options.data / "label_list.txt").read_text().split()
    network: nn.Module = DetectionModel(options.yaml, nc=len(classes), verbose=False).float()
    return network


def _meter(options: argparse.Namespace) -> LatencyMeter:
    """Return a meter that times networks in turn with the wide network, on ONNX Runtime with one thread."""
    settings = prunus.BenchmarkSettings(backends=("onnxruntime",), repeats=options.repeats, warmup=5)
    return LatencyMeter(_wide_network(options), torch.zeros(1, 3, options.size, options.size), settings)


def _summary(rows: list[Row]) -> dict[str, Any]:
    result = dict[str, Any]()
    for name in ("map50", "map50_95", "macs", "params", "seconds"):
        mean, error = mean_and_error([row[name] for row in rows])
        result[name] = {"mean": mean, "standard_error": error, "seeds": [row[name] for row in rows]}
    return result


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="roadsign_voc")
    parser.add_argument("--folder", type=Path, required=True, help="of trainings and rows; the same one goes on")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--yaml", default="yolov8n.yaml")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--begin", type=float, default=0.25)
    parser.add_argument("--end", type=float, default=0.6)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--bisections", type=int, default=8)
    parser.add_argument("--limit", type=int, default=None, help="of images per split: for a trial")
    parser.add_argument("--time", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
