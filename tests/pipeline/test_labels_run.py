"""A whole run of a classification recipe, in seconds, from an image folder."""

import json

import numpy as np
import pytest
from PIL import Image

from prunus import pipeline, recipe
from prunus.errors import RecipeError
from prunus.records import EvaluationRecord, RunRecord, SampleRecord, read

RECIPE = """\
name: signs
data:
  class_path: prunus.data.ImageFolderData
  init_args: {root: data, size: [16, 16], validation_folder: null, test_folder: test}
model:
  class_path: prunus.models.small.PlainNet
  init_args: {widths: [8, 8]}
task:
  class_path: prunus.tasks.classification.Classification
  init_args: {label_smoothing: 0.1}
train: {epochs: 3, batch_size: 4, threads: 1, device: cpu}
shrink: {begin: 0.3, end: 0.7}
deploy:
  benchmark: {backends: [onnxruntime], repeats: 2, warmup: 0, measure_memory: false}
  parity_samples: 2
report_samples: 1
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    generator = np.random.default_rng(0)
    for split, count in (("train", 6), ("test", 3)):
        for number in range(3):
            for image in range(count):
                path = tmp_path / "data" / split / f"kind {number}" / f"{image}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = np.full((16, 16, 3), 80 * number, np.uint8) + generator.integers(0, 40, (16, 16, 3), np.uint8)
                Image.fromarray(pixels).save(path)
    (tmp_path / "signs.yaml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_run_of_labels_ends_in_a_report(here):
    folder = pipeline.run(recipe.load(pipeline.Recipe, "signs.yaml"))
    records = read(folder)
    run = next(record for record in records if isinstance(record, RunRecord))
    assert run.class_names == ("kind 0", "kind 1", "kind 2") and run.palette == ()
    results = {record.model: record for record in records if isinstance(record, EvaluationRecord)}
    assert results["narrow"].macs < 0.45 * results["wide"].macs
    assert list(results["narrow"].metrics) == ["top1", "top5"] and set(results["narrow"].per_class) == set(
        run.class_names
    )
    sample = next(record for record in records if isinstance(record, SampleRecord))
    for path in (sample.image, sample.truth, sample.wide, sample.narrow):
        with Image.open(folder / path) as picture:
            assert picture.size[0] > 0
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "top-1" in page
    json.dumps(recipe.describe(recipe.load(pipeline.Recipe, folder / "recipe.yaml")))


def test_labels_for_a_task_of_masks_are_refused(here):
    text = RECIPE.replace("prunus.tasks.classification.Classification", "prunus.tasks.segmentation.Segmentation")
    (here / "wrong.yaml").write_text(text.replace("{label_smoothing: 0.1}", "{}"))
    with pytest.raises(RecipeError, match=r"Segmentation needs masks, and ImageFolderData gives labels"):
        pipeline.run(recipe.load(pipeline.Recipe, "wrong.yaml"))


def test_the_default_task_is_refused_by_name(here):
    begin, end = RECIPE.index("task:"), RECIPE.index("train:")
    (here / "none.yaml").write_text(RECIPE[:begin] + RECIPE[end:])
    with pytest.raises(RecipeError, match=r"task\.class_path to prunus\.tasks\.classification\.Classification"):
        pipeline.run(recipe.load(pipeline.Recipe, "none.yaml"))
