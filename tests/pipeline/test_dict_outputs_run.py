"""A whole run of a network that returns a dictionary with an auxiliary head, taught by its wide form."""

import textwrap

import tiny
import torch
from torch import Tensor, nn

from prunus import pipeline, recipe
from prunus.cli import main
from prunus.records import EvaluationRecord, ParityRecord, RemovalRecord, SampleRecord, read


class TwoHeads(nn.Module):
    """A segmenter as torchvision's are: {"out": scores, "aux": scores of a head that helps to train}."""

    def __init__(self, *, num_classes: int) -> None:
        super().__init__()
        self.body = tiny.TinySegmenter(num_classes=num_classes)
        self.aux = nn.ConvTranspose2d(16, num_classes, 2, stride=2)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        features = self.body.encoder(images)
        return {"out": self.body.decoder(features), "aux": self.aux(features)}


RECIPE = """
name: heads
data:
  class_path: prunus.data.StreetData
  init_args: {size: [16, 32], num_train: 16, num_validation: 4, num_test: 4}
model: {class_path: test_dict_outputs_run.TwoHeads}
task:
  class_path: prunus.tasks.segmentation.Segmentation
  init_args: {output: out, auxiliary: {aux: 0.4}}
train: {epochs: 2, batch_size: 4, threads: 1, device: cpu}
shrink: {budget: {macs: 0.5, keep: ["aux"], multiple_of: 2}, begin: 0.0, end: 0.5}
then:
  - {name: taught, train: {epochs: 1, batch_size: 4, threads: 1, device: cpu}, distillation: {weight: 0.5}}
deploy:
  benchmark: {backends: [onnxruntime], repeats: 2, warmup: 0, measure_memory: false}
  parity_samples: 2
report_samples: 1
"""


def test_a_run_of_two_heads(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "heads.yaml").write_text(textwrap.dedent(RECIPE))
    assert main(["run", "heads.yaml"]) == 0
    records = list(read(tmp_path / "runs" / "heads"))
    kinds = {kind: [record for record in records if isinstance(record, kind)] for kind in set(map(type, records))}
    assert {record.model for record in kinds[EvaluationRecord]} >= {"wide", "narrow"}
    assert all(record.passed for kind in (ParityRecord, RemovalRecord) for record in kinds[kind])
    assert kinds[SampleRecord][0].narrow is not None
    assert (tmp_path / "runs" / "heads" / "report.html").stat().st_size > 10_000


def test_the_recipe_keeps_the_heads(tmp_path):
    (tmp_path / "heads.yaml").write_text(textwrap.dedent(RECIPE))
    loaded = recipe.load(pipeline.Recipe, tmp_path / "heads.yaml")
    assert loaded.task.output == "out" and loaded.task.auxiliary == {"aux": 0.4}
    assert torch.is_tensor(loaded.task.bind(loaded.data).class_weights)
