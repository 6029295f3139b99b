"""Form choice in a run: a factorisation that is slower is undone by itself, and the report shows the choice."""

import dataclasses

import onnx
import pytest
from test_run import RECIPE, at, only

import prunus
from prunus.pipeline import Factorize, Stage
from prunus.pipeline.context import RunContext
from prunus.records import FormRecord, ParityRecord

ONE = dataclasses.replace(RECIPE.train, epochs=1)
SHORT = {
    "train": ONE,
    "shrink": None,
    "baseline": False,
    "then": (Stage(name="factorised", edits=(Factorize(layers="encoder.3.body.3", rank=4),)),),
}


def convolutions(path):
    return sum(node.op_type == "Conv" for node in onnx.load(path).graph.node)


@pytest.mark.parametrize("slower", [True, False])
def test_a_factorisation_that_is_slower_is_undone(tmp_path, monkeypatch, slower):
    def of(network):
        return sum(1 for _ in network.modules()) * (1.0 if slower else -1.0) + 1000

    monkeypatch.setattr(RunContext, "meter", lambda self, model, budget: of)
    folder = prunus.run(at(tmp_path, **SHORT))
    (found,) = only(folder, FormRecord)
    assert (found.model, found.layer, found.target) == ("narrow", "encoder.3.body.3", "onnxruntime")
    assert (found.chosen == "one layer") == slower
    assert convolutions(folder / "joint.onnx") == 3
    assert convolutions(folder / "narrow.onnx") == (3 if slower else 4)
    assert [record.model for record in only(folder, ParityRecord) if record.passed] == ["joint", "narrow"]
    row = (folder / "report.html").read_text(encoding="utf-8").partition('<tr data-form="encoder.3.body.3">')[2]
    assert "2 layers (factorize): " in row and f"<td>{found.chosen}</td>" in row


def test_whoever_wants_the_form_as_trained_says_so(tmp_path):
    deploy = dataclasses.replace(RECIPE.deploy, choose_forms=False)
    folder = prunus.run(at(tmp_path, **SHORT, deploy=deploy))
    assert not only(folder, FormRecord)
    assert convolutions(folder / "narrow.onnx") == 4
