"""The gate of a run: it stops an over-cut network before its export; the report and the command line say where."""

import json

import pytest
import tiny

from prunus import pipeline, recipe
from prunus.cli import main
from prunus.errors import GateError, RecipeError
from prunus.records import CurveRecord, GateRecord, SampleRecord, SliceRecord, read

DETECTION = """\
# A detector in seconds.
name: tiny_detection
data:
  class_path: prunus.data.StreetBoxesData
  init_args: {size: [32, 64], num_train: 40, num_validation: 10, num_test: 20}
model:
  class_path: prunus.models.centre_detector.CentreDetector
  init_args: {widths: [8, 16, 16], neck: 8}
task:
  class_path: prunus.tasks.detection.Detection
  init_args: {shown: 0.05, metric: {class_path: prunus.tasks.coco_metric.COCOMetric, init_args: {main: map50}}}
train: {epochs: 6, batch_size: 4, threads: 1, device: cpu, optimizer: {learning_rate: 1.0e-2}}
shrink: {budget: {macs: 0.5}}
deploy:
  benchmark: {backends: [onnxruntime], repeats: 2, warmup: 0, measure_memory: false}
  parity_samples: 2
report_samples: 1
gate: {min_samples: 10, stop: false, gallery: 2, robust_images: 4}
"""


def loaded(folder, text, *overrides):
    path = folder / "recipe.yaml"
    path.write_text(text)
    return recipe.load(pipeline.Recipe, path, [f"output={folder / 'run'}", *overrides])


def test_the_gate_stops_an_over_cut_network_before_its_export(tmp_path):
    text = tiny.RECIPE.replace("num_test: 4", "num_test: 20").replace("epochs: 4", "epochs: 8")
    gate = "gate: {max_drop: 0.5, min_samples: 5}\nshrink: {budget: {params: 0.05, min_share: 0.01}}\n"
    with pytest.raises(GateError, match=r"slices dropped by more than 0\.5 points beyond doubt: .*gate\.stop: false"):
        pipeline.run(loaded(tmp_path, text + gate))
    folder = tmp_path / "run"
    assert not (folder / "narrow.onnx").exists() and (folder / "narrow").is_dir()
    found = read(folder)
    (verdict,) = (record for record in found if isinstance(record, GateRecord))
    slices = [record for record in found if isinstance(record, SliceRecord)]
    assert not verdict.passed and {each.slice for each in slices} == {"all", "class", "condition", "class in condition"}
    judged = [each.wide - each.narrow for each in slices if each.verdict != "too small"]
    assert judged == sorted(judged, reverse=True)
    page = (folder / "report.html").read_text()
    assert "Gate</b> failed" in page and "Slice by slice" in page
    again = loaded(tmp_path, text + gate, "gate.stop=false")
    pipeline.run(again, accept_changes=True)
    assert (folder / "narrow.onnx").exists()


@pytest.fixture(scope="module")
def detected(tmp_path_factory):
    """The folder of a whole run of detection."""
    folder = tmp_path_factory.mktemp("detection")
    return pipeline.run(loaded(folder, DETECTION))


def test_a_detection_run_has_boxes_slices_curves_and_gallery(detected):
    found = read(detected)
    slices = {(record.slice, record.name) for record in found if isinstance(record, SliceRecord)}
    assert {kind for kind, _ in slices} >= {"all", "class", "condition", "size", "class in condition"}
    assert ("class in condition", "pedestrian, night") in slices
    curves = [record for record in found if isinstance(record, CurveRecord)]
    assert {record.model for record in curves} <= {"wide", "narrow"}
    gallery = [record for record in found if isinstance(record, SampleRecord) and record.disagreement is not None]
    assert all((detected / path).is_file() for each in gallery for path in (each.truth, each.wide, each.narrow))
    page = (detected / "report.html").read_text()
    for text in ("Slice by slice", "mAP50", "Calibration and robustness", "Where the two disagree most"):
        assert text in page
    for name in ("wide.onnx", "narrow.onnx"):
        assert (detected / name).is_file()


def test_the_command_line_compares_files_and_exits_with_one(detected, capsys):
    files = [str(detected / "wide.onnx"), str(detected / "narrow.onnx")]
    data = ["--data", str(detected), "--min-samples", "10"]
    assert main(["compare", files[0], files[0], *data, "--max-drop", "0"]) == 0
    shown = capsys.readouterr()
    assert "pedestrian" in shown.out and "dropped by more than 0 points" in shown.out
    main(["compare", *files, *data, "--per", "class", "--max-drop", "100"])
    assert "night" not in capsys.readouterr().out
    assert main(["compare", *files, *data, "--per", "weather"]) == 1
    assert "known: class" in capsys.readouterr().err


def test_the_command_line_fails_where_a_slice_fell(tmp_path, capsys):
    text = tiny.RECIPE.replace("num_test: 4", "num_test: 20").replace("epochs: 4", "epochs: 8")
    folder = pipeline.run(loaded(tmp_path, text + "shrink: {budget: {params: 0.05, min_share: 0.01}}\n"))
    files = [str(folder / "wide.onnx"), str(folder / "narrow.onnx")]
    assert main(["compare", *files, "--data", str(folder), "--min-samples", "5"]) == 1
    assert "slices dropped by more than 0.5 points beyond doubt" in capsys.readouterr().err


def test_a_gate_needs_a_wide_network(tmp_path):
    with pytest.raises(RecipeError, match=r"gate compares with the wide network.*baseline: true"):
        loaded(tmp_path, tiny.RECIPE + "gate: {}\nbaseline: false\n")


def test_the_records_are_plain_json(detected):
    kinds = {json.loads(line)["kind"] for line in (detected / "records.jsonl").read_text().splitlines()}
    assert kinds >= {"gate", "slice", "robustness"}
