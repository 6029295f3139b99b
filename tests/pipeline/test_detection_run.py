"""Whole runs of detectors: torchvision's through the same task, files that decode, expanded and contracted."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from prunus import pipeline, recipe
from prunus.boxes import DETECTION_COLUMNS
from prunus.errors import RecipeError
from prunus.records import EditRecord, EvaluationRecord, NoteRecord, ParityRecord, ShrinkRecord, SliceRecord, read

SAMPLE = Path(__file__).parents[3] / "shared" / "data" / "kitti_sample"
RECIPES = Path(__file__).parents[2] / "recipes"
BASE = """\
# A detector in seconds.
name: detector
data:
  class_path: prunus.data.StreetBoxesData
  init_args: {size: [64, 64], num_train: 6, num_validation: 2, num_test: 3}
task:
  class_path: prunus.tasks.detection.Detection
  init_args: {most: 10}
train: {epochs: 3, batch_size: 3, threads: 1, device: cpu}
shrink: {budget: {macs: 0.6}, begin: 0.3, end: 0.7}
deploy:
  benchmark: {backends: [onnxruntime], repeats: 2, warmup: 0, measure_memory: false}
  parity_samples: 2
report_samples: 1
"""
CENTRE = """\
model:
  class_path: prunus.models.centre_detector.CentreDetector
  init_args: {widths: [8, 16, 16], neck: 8}
"""
TORCHVISION = """\
model:
  class_path: prunus.models.torchvision_detector.TorchvisionDetector
  init_args: {{function: {0}, arguments: {1}}}
"""


def run(folder, text, *overrides):
    path = folder / "recipe.yaml"
    path.write_text(text)
    return pipeline.run(recipe.load(pipeline.Recipe, path, [f"output={folder / 'run'}", *overrides]))


def macs(found):
    return {record.model: record.macs for record in found if isinstance(record, EvaluationRecord)}


def torchvision_recipe(function, arguments="{}"):
    heads = "prunus.tasks.torchvision_heads.TorchvisionHeads"
    settings = (
        f"{{most: 10, heads: {{class_path: {heads}, init_args: {{function: {function}, arguments: {arguments}}}}}}}"
    )
    return BASE.replace("{most: 10}", settings) + TORCHVISION.format(function, arguments)


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        ("ssdlite320_mobilenet_v3_large", "{}"),
        ("retinanet_resnet50_fpn", "{trainable_backbone_layers: 5}"),
        ("fcos_resnet50_fpn", "{trainable_backbone_layers: 5}"),
    ],
)
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Changing trainable_backbone_layers:UserWarning")
def test_torchvision_detectors_shrink_while_they_train_and_export(function, arguments, tmp_path):
    found = read(run(tmp_path, torchvision_recipe(function, arguments)))
    assert macs(found)["narrow"] <= 0.6 * macs(found)["wide"]
    assert any(isinstance(record, ShrinkRecord) for record in found)
    parities = [record for record in found if isinstance(record, ParityRecord)]
    assert {record.model for record in parities} == {"wide", "narrow"} and all(record.passed for record in parities)
    with pytest.raises(RecipeError, match=r"deploy\.decode: .*suppression"):
        run(tmp_path, torchvision_recipe(function, arguments), "deploy.decode=true", f"output={tmp_path / 'other'}")


def test_the_file_decodes_where_the_recipe_says_so(tmp_path):
    folder = run(tmp_path, BASE + CENTRE, "deploy.decode=true")
    session = onnxruntime.InferenceSession(folder / "narrow.onnx")
    images = np.random.default_rng(0).standard_normal((3, 3, 64, 64)).astype(np.float32)
    (rows,) = session.run(None, {"input": images})
    assert rows.shape == (3, 10, len(DETECTION_COLUMNS)) and (np.diff(rows[..., 5]) <= 0).all()
    parities = [record for record in read(folder) if isinstance(record, ParityRecord)]
    assert len(parities) == 2 and all(record.passed for record in parities)


def test_a_detector_is_expanded_trained_and_contracted(tmp_path):
    stages = """\
shrink: null
edits: [{class_path: prunus.pipeline.Expand, init_args: {rate: 2, layers: [smooth.0, heat.0]}}]
then: [{name: contracted, edits: [{class_path: prunus.pipeline.Contract}]}]
"""
    text = BASE.replace("shrink: {budget: {macs: 0.6}, begin: 0.3, end: 0.7}\n", "")
    found = read(run(tmp_path, text + CENTRE + stages))
    edits = [record.edit for record in found if isinstance(record, EditRecord)]
    assert {"Expand", "Contract"} <= set(edits) and macs(found)["narrow"] == macs(found)["wide"]


@pytest.mark.skipif(not SAMPLE.is_dir(), reason=f"{SAMPLE} is absent")
def test_the_kitti_recipe_runs_on_frames_of_kitti(tmp_path):
    small = [f"data.root={SAMPLE}", "data.size=[64, 224]", "model.widths=[8, 16, 24]", "model.neck=8"]
    small += ["train.epochs=2", "train.batch_size=5", "train.num_workers=0", "train.device=cpu", "report_samples=1"]
    small += ["deploy.benchmark.backends=[onnxruntime]", "deploy.benchmark.measure_memory=false"]
    chosen = recipe.load(pipeline.Recipe, RECIPES / "kitti_detection.yaml", [*small, f"output={tmp_path}"])
    found = read(pipeline.run(chosen))
    metrics = {record.model: record.metrics for record in found if isinstance(record, EvaluationRecord)}
    assert list(metrics["narrow"]) == ["ap40_moderate", "ap40_easy", "ap40_hard"]
    slices = {(record.slice, record.name) for record in found if isinstance(record, SliceRecord)}
    assert ("distance", "15 to 30 m") in slices and ("class", "Pedestrian") in slices
    notes = [record.text for record in found if isinstance(record, NoteRecord)]
    assert any("cut at the border" in text for text in notes)  # ten of the frames are crops
