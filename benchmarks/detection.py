"""Claims on detection: the centre detector against SSDLite, joint against train-prune-tune, expanded against plain.

    python benchmarks/detection.py overfit    KITTI_SAMPLE [--epochs 200]
    python benchmarks/detection.py roadsign   ROADSIGN_VOC [--arms centre ssdlite joint tuned started timed expanded]
                                              [--seeds 0 1] [--epochs 60] [--size 320]

`overfit` trains on the 25 training frames of the sample, without augmentation, and evaluates on the same frames: if the
average precision approaches 1, reader, loss, decoding and metric are correct. `roadsign` evaluates on the test split:

- centre, ssdlite: the wide centre detector, and torchvision's SSDLite with the same training settings.
- joint: the centre detector shrunk in training to 40 % of its multiply-adds, from fresh weights, without a teacher.
- tuned, started: the same by train, prune, fine-tune in as many epochs, and from the trained wide network (default).
- timed: from the trained wide network to 48 % of its measured latency.
- expanded: the wide centre detector, trained expanded (rate 2) and contracted.

Each row (arm, seed, epochs, size) is appended to results/detection.jsonl, and never repeated.
"""

import argparse
import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import torch
from frontier_rows import Row, Rows
from result import RESULTS

from prunus import pipeline, recipe
from prunus.boxes import EVERY
from prunus.data import KITTIData
from prunus.data.augmentation import Augmentation
from prunus.models.centre_detector import CentreDetector
from prunus.records import EvaluationRecord, LatencyRecord, Recorder, read
from prunus.tasks.detection import Detection
from prunus.tasks.kitti_metric import KITTIMetric
from prunus.train.evaluate import evaluate
from prunus.train.fit import TrainingJob, fit
from prunus.train.settings import OptimizerSettings, Train

RECIPES = Path(__file__).parents[1] / "recipes"
KEY = ("arm", "seed", "epochs", "size")
ARMS = ("centre", "ssdlite", "joint", "tuned", "started", "timed", "expanded")
SSDLITE = [
    "model.class_path=prunus.models.torchvision_detector.TorchvisionDetector",
    "task.heads.class_path=prunus.tasks.torchvision_heads.TorchvisionHeads",
]
EXPAND = """\
edits:
  - class_path: prunus.pipeline.Expand
    init_args: {rate: 2, layers: [smooth.0, heat.0, sides.0]}
then:
  - name: contracted
    edits: [{class_path: prunus.pipeline.Contract}]
"""
WIDTHS = (24, 48, 96, 160, 224)


def overfit(root: Path, epochs: int, size: tuple[int, int] = (192, 640), threads: int | None = None) -> Row:
    """Return the average precisions on the training frames, and the number of objects per class."""
    still = Augmentation(flip=0.0, shift=0)
    data = KITTIData(root=root, size=size, augmentation=still, cache=True, test_list="ImageSets/train.txt")
    data = dataclasses.replace(data, validation_list="ImageSets/train.txt")
    task = Detection(metric=KITTIMetric()).bind(data)
    optimizer = OptimizerSettings(name="adamw", learning_rate=2e-3)
    train = Train(
        epochs=epochs, batch_size=5, optimizer=optimizer, schedule="cosine", evaluate_every=epochs, threads=threads
    )
    torch.manual_seed(0)
    model = CentreDetector(num_classes=3, blocks="residual", widths=WIDTHS, neck=64)
    with tempfile.TemporaryDirectory() as folder:
        job = TrainingJob(
            name="wide",
            data=data,
            task=task,
            settings=train,
            seed=0,
            folder=Path(folder),
            recorder=Recorder(Path(folder)),
        )
        fitted = fit(job, model, data.train()[0][0][None])
    metrics, per_class = evaluate(fitted.model, task, data.test(), train)
    source = data.train().source
    labels = torch.cat([source.objects(index).labels for index in range(len(source))])
    objects = {name: int((labels == label).sum()) for label, name in enumerate(data.class_names)}
    return {
        "metrics": metrics, "per_class": per_class, "objects": objects, "regions": int((labels == EVERY).sum()),
        "seconds": fitted.seconds,
    }  # fmt: skip


def roadsign(arm: str, root: Path, seed: int, epochs: int, size: int) -> Row:
    """Run an arm and return the metrics, multiply-adds and latency of its networks."""
    name = "roadsign_train_prune_tune" if arm == "tuned" else "roadsign_detection"
    text = (RECIPES / f"{name}.yaml").read_text(encoding="utf-8")
    halves = epochs // 2 if arm == "tuned" else epochs
    text = text.replace(f"epochs: {30 if arm == 'tuned' else 60}\n", f"epochs: {halves}\n")
    changes = [f"data.root={root}", f"data.size=[{size}, {size}]", f"seed={seed}", "report_samples=0"]
    if arm in ("centre", "ssdlite", "expanded"):  # the wide network alone
        changes += ["shrink=null", "baseline=false", "gate=null"]
    if arm == "joint":
        changes.append("start=fresh")
    if arm == "timed":
        changes += ["shrink.budget.macs=null", "shrink.budget.latency=0.48"]
    if arm == "ssdlite":
        text = text.replace("prunus.models.centre_detector.CentreDetector", SSDLITE[0].partition("=")[2])
        heads = f"    heads: {{class_path: {SSDLITE[1].partition('=')[2]}}}\n"
        text = text.replace("  init_args:\n    metric:", f"  init_args:\n{heads}    metric:")
    if arm == "expanded":
        text += EXPAND
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recipe.yaml"
        path.write_text(text, encoding="utf-8")
        chosen = recipe.load(pipeline.Recipe, path, [*changes, f"output={folder}/run"])
        records = list(read(pipeline.run(chosen)))
    found: dict[str, Any] = {}
    for record in records:
        if isinstance(record, EvaluationRecord):
            found[record.model] = {**record.metrics, "macs": record.macs, "seconds": record.training_seconds}
    for record in records:
        if isinstance(record, LatencyRecord) and record.backend == "onnxruntime":
            found[record.model]["median_ms"] = record.median_ms
    return {"networks": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("claim", choices=("overfit", "roadsign"))
    parser.add_argument("root", type=Path)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--size", type=int, default=320)
    options = parser.parse_args()
    rows = Rows(RESULTS / "detection.jsonl", KEY)
    if options.claim == "overfit":
        epochs = options.epochs or 200
        which = {"arm": "overfit", "seed": 0, "epochs": epochs, "size": 640}
        rows.once(which, lambda: overfit(options.root, epochs))
        return
    epochs = options.epochs or 60
    for seed in options.seeds:
        for arm in options.arms:
            which = {"arm": arm, "seed": seed, "epochs": epochs, "size": options.size}
            rows.once(which, lambda arm=arm, seed=seed: roadsign(arm, options.root, seed, epochs, options.size))


if __name__ == "__main__":
    main()
