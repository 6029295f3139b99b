"""A whole run of several tasks: the shipped recipe in small, a file that decodes, tasks of the user's own."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from prunus import pipeline, recipe
from prunus.cli import main
from prunus.errors import RecipeError, TrainingError
from prunus.named import named
from prunus.records import (
    EpochRecord,
    EvaluationRecord,
    GateRecord,
    ParityRecord,
    RemovalRecord,
    RunRecord,
    SampleRecord,
    SliceRecord,
    read,
)

SHIPPED = Path(__file__).parents[2] / "recipes" / "street_multitask.yaml"
SMALL = [
    "data.size=[32, 64]", "data.num_train=24", "data.num_validation=8", "data.num_test=15", "train.epochs=3",
    "train.batch_size=4", "train.threads=1", "train.device=cpu", "train.evaluate_every=1", "model.widths=[8, 16, 16]",
    "model.neck=8", "gate.min_samples=5", "gate.gallery=2", "gate.robust_images=4", "report_samples=1",
    "deploy.benchmark.backends=[onnxruntime]", "deploy.benchmark.repeats=2", "deploy.benchmark.warmup=0",
    "deploy.benchmark.measure_memory=false", "deploy.parity_samples=2",
    "deploy.decode=true", "distillation={weight: 0.3}", "protect={classes: [pedestrian], conditions: [night]}",
]  # fmt: skip


def of_type(kind, records):
    return [record for record in records if isinstance(record, kind)]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The folder of a run of the shipped recipe in small, its file decoding, taught and protected."""
    folder = tmp_path_factory.mktemp("multitask")
    return pipeline.run(recipe.load(pipeline.Recipe, SHIPPED, [*SMALL, f"output={folder / 'run'}"]))


def test_the_recipe_shrinks_both_tasks_under_one_budget(done):
    found = read(done)
    networks = {record.model: record for record in of_type(EvaluationRecord, found)}
    assert networks["narrow"].macs <= 0.4 * networks["wide"].macs
    assert list(networks["narrow"].metrics)[:2] == ["mean", "segmentation.miou"]
    assert "detection.map50" in networks["narrow"].metrics
    assert {"segmentation: car", "detection: car"} <= set(networks["narrow"].per_class)
    assert len(of_type(EpochRecord, found)) == 6 and all(each.metrics for each in of_type(EpochRecord, found))
    assert all(record.passed for kind in (ParityRecord, RemovalRecord) for record in of_type(kind, found))
    assert of_type(RunRecord, found)[0].num_classes == {"segmentation": 11, "detection": 3}


def test_the_file_has_scores_and_boxes(done):
    session = onnxruntime.InferenceSession(done / "narrow.onnx")
    images = np.random.default_rng(0).standard_normal((3, 3, 32, 64)).astype(np.float32)
    found = dict(zip([each.name for each in session.get_outputs()], session.run(None, {"input": images}), strict=True))
    assert {name: array.shape for name, array in found.items()} == {
        "segmentation": (3, 11, 32, 64),
        "detection": (3, 100, 6),
    }


def test_the_gate_judges_the_slices_of_both(done):
    found = read(done)
    (verdict,), slices = of_type(GateRecord, found), of_type(SliceRecord, found)
    assert verdict.metric == "segmentation.miou, detection.map50"
    assert set(verdict.calibrations) == {"segmentation", "detection"}
    names = {(each.slice, each.name) for each in slices}
    assert {("all", "segmentation: all"), ("all", "detection: all"), ("condition", "detection: night")} <= names
    assert ("class in condition", "segmentation: pedestrian, night") in names
    pictures = of_type(SampleRecord, found)
    for name in ("truth", "wide", "narrow"):
        with Image.open(done / getattr(pictures[0], name)) as picture:
            assert picture.size == (64, 64)  # masks, and boxes below them
    page = (done / "report.html").read_text()
    for text in (
        "mean over tasks",
        "segmentation mIoU, detection mAP50",
        "calibration error of detection",
        "segmentation IoU, detection AP50 by class",
    ):
        assert text in page


def test_the_narrow_network_is_built_again_and_compared(done, capsys):
    network = named(str(done)).model
    answer = network.eval()(torch.zeros(1, 3, 32, 64))
    assert set(answer) == {"segmentation", "detection"}
    run = [str(done), str(done), "--data", str(done), "--min-samples", "5", "--max-drop", "0"]
    assert main(["compare", *run]) == 0
    assert "detection: car" in capsys.readouterr().out


def test_files_that_decode_are_compared_as_their_networks_are(done, capsys):
    files = [str(done / "wide.onnx"), str(done / "narrow.onnx")]
    assert main(["compare", *files, "--data", str(done), "--max-drop", "100", "--min-samples", "5"]) == 0
    shown = capsys.readouterr().out
    (of_run,) = (each for each in of_type(SliceRecord, read(done)) if each.name == "detection: all")
    (line,) = (line for line in shown.splitlines() if "detection: all" in line)
    assert [f"{100 * of_run.wide:.1f}", f"{100 * of_run.narrow:.1f}"] == line.replace("│", " ").split()[3:5]


def test_files_with_raw_heads_are_compared_too(tmp_path, capsys):
    raw = [item for item in SMALL if item.partition("=")[0] not in ("deploy.decode", "distillation", "protect")]
    chosen = recipe.load(pipeline.Recipe, SHIPPED, [*raw, "train.epochs=1", "gate=null", f"output={tmp_path / 'run'}"])
    folder = pipeline.run(chosen)
    files = [str(folder / "wide.onnx"), str(folder / "narrow.onnx")]
    assert main(["compare", *files, "--data", str(folder), "--max-drop", "100"]) == 0
    shown = capsys.readouterr().out
    assert "segmentation.miou, detection.map50" in shown and "detection: all" in shown


class TwoViews(nn.Module):
    """Masks and a label of the whole picture; `lost` leaves the label out."""

    def __init__(self, *, num_classes: dict[str, int], lost: bool = False) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU())
        self.masks, self.label = nn.Conv2d(12, num_classes["masks"], 1), nn.Linear(12, num_classes["label"])
        self.lost = lost

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        features = self.body(images)
        found = {"pixels": self.masks(features), "label": self.label(features.mean((2, 3)))}
        return {"pixels": found["pixels"]} if self.lost else found


def write_views(root: Path) -> None:
    """Write the same eight images for each split once with masks and once in folders of their classes."""
    random = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        lines = []
        for index in range(8):
            image, mask = (
                random.integers(0, top, shape, np.uint8) for top, shape in ((256, (20, 20, 3)), (12, (20, 20)))
            )
            image_path, mask_path = (root / "masks" / folder / f"{index}.png" for folder in (split, f"{split}annot"))
            label_path = root / "labels" / split / ("town" if index > 3 else "land") / f"{index}.png"
            for path, pixels in ((image_path, image), (mask_path, mask), (label_path, image)):
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)
            lines.append(f"{split}/{index}.png {split}annot/{index}.png\n")
        (root / "masks" / f"{split}.txt").write_text("".join(lines))


OWN = """\
name: own
data:
  class_path: prunus.data.CombinedData
  init_args:
    parts:
      masks:
        class_path: prunus.data.CamVidData
        init_args: {root: masks, size: [16, 16], augmentation: {flip: 0.5, shift: 0}}
      label:
        class_path: prunus.data.ImageFolderData
        init_args: {root: labels, size: [16, 16], test_folder: test, augmentation: {flip: 0.5, padding: 0}}
model: {class_path: test_multi_task_run.TwoViews}
task:
  class_path: prunus.tasks.multi_task.MultiTask
  init_args:
    main: label
    tasks:
      masks: {task: {class_path: prunus.tasks.segmentation.Segmentation}, output: pixels}
      label: {task: {class_path: prunus.tasks.classification.Classification}, weight: 2}
train: {epochs: 2, batch_size: 4, threads: 1, device: cpu}
shrink: {budget: {macs: 0.6}, begin: 0.0, end: 0.5}
gate: {min_samples: 1, stop: false}
deploy:
  benchmark: {backends: [onnxruntime], repeats: 2, warmup: 0, measure_memory: false}
  parity_samples: 2
report_samples: 1
"""


def own(folder, *overrides):
    write_views(folder)
    (folder / "own.yaml").write_text(OWN)
    return recipe.load(pipeline.Recipe, folder / "own.yaml", [f"output={folder / 'run'}", *overrides])


def test_tasks_data_and_network_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = read(pipeline.run(own(tmp_path)))
    networks = {record.model: record for record in of_type(EvaluationRecord, found)}
    assert networks["narrow"].macs <= 0.6 * networks["wide"].macs
    assert next(iter(networks["narrow"].metrics)) == "label.top1"
    assert {"masks.miou", "label.top5", "mean"} <= set(networks["narrow"].metrics)
    assert {"label: land", "label: town", "masks: road"} <= set(networks["narrow"].per_class)
    assert all(record.passed for record in of_type(ParityRecord, found))
    assert {"masks: all", "label: town"} <= {each.name for each in of_type(SliceRecord, found)}


def test_what_a_recipe_gets_wrong_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TrainingError, match=r"dict with pixels, and the sub-task label reads the entry 'label'"):
        pipeline.run(own(tmp_path, "model.lost=true", f"output={tmp_path / 'lost'}"))
    with pytest.raises(RecipeError, match=r"cannot be built for .*takes \{sub-task: number of classes\}"):
        pipeline.run(own(tmp_path, "model.class_path=prunus.models.erfnet.ERFNet", f"output={tmp_path / 'one'}"))
    with pytest.raises(RecipeError, match=r"sub-task depth, and CombinedData gives targets for masks, label"):
        depth = "task.tasks.depth={task: {class_path: prunus.tasks.segmentation.Segmentation}}"
        pipeline.run(own(tmp_path, depth, f"output={tmp_path / 'depth'}"))
    with pytest.raises(RecipeError, match=r"own\.yaml, line \d+: `task\.init_args\.tasks\.label\.wieght`.*`weight`"):
        (tmp_path / "own.yaml").write_text(OWN.replace("weight: 2", "wieght: 2"))
        recipe.load(pipeline.Recipe, tmp_path / "own.yaml")
    with pytest.raises(RecipeError, match=r"task\.main is 'depth'"):
        own(tmp_path, "task.main=depth")
