"""A run that begins with trained weights: it trains them, notices another file, and can compare with them untrained."""

import dataclasses

import pytest
import safetensors.torch
import tiny
import torch

import prunus
from prunus import cli
from prunus.errors import DataError, RecipeError
from prunus.pipeline.recipe import EncoderStage, Recipe
from prunus.records import EpochRecord, EvaluationRecord, NoteRecord, RunRecord, read

RECIPE = Recipe(
    name="tiny",
    data=tiny.DATA,
    model=tiny.TinySegmenter,
    train=dataclasses.replace(tiny.TRAIN, epochs=2),
    shrink=tiny.SHRINK,
    deploy=prunus.pipeline.Deploy(
        benchmark=prunus.BenchmarkSettings(backends=("onnxruntime",), repeats=2, warmup=0, measure_memory=False),
        parity_samples=2,
    ),
    report_samples=0,
)


def trained():
    torch.manual_seed(5)
    return tiny.TinySegmenter(num_classes=len(tiny.DATA.class_names))


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "w.safetensors"
    safetensors.torch.save_file(trained().state_dict(), path)
    return path


def only(folder, kind):
    return [record for record in read(folder) if isinstance(record, kind)]


def test_untrained_the_wide_network_is_the_one_that_the_weights_give(tmp_path, weights):
    folder = tmp_path / "run"
    recipe = dataclasses.replace(RECIPE, weights=str(weights), baseline="untrained", output=str(folder))
    prunus.run(recipe)
    assert {record.model for record in only(folder, EpochRecord)} == {"narrow"}
    assert [record.model for record in only(folder, EvaluationRecord)] == ["wide", "narrow"]
    assert (folder / "wide.onnx").is_file()
    (note,) = only(folder, NoteRecord)
    assert f"{weights}: {len(trained().state_dict())} tensors come from the file" in note.text
    (run,) = only(folder, RunRecord)
    assert len(run.weights) == 64


def test_a_training_begins_with_them(tmp_path, weights):
    still = dataclasses.replace(tiny.TRAIN, epochs=1, optimizer=tiny.OptimizerSettings(learning_rate=1e-12))
    recipe = dataclasses.replace(
        RECIPE, weights=prunus.models.weights.Weights(path=str(weights)), train=still, shrink=None, baseline=False
    )
    prunus.run(dataclasses.replace(recipe, output=str(tmp_path / "run")))
    found = dict(prunus.load(tmp_path / "run/narrow", tiny.build).named_parameters())
    assert all(torch.allclose(each, found[path], atol=1e-9) for path, each in trained().named_parameters())


def test_another_file_of_that_name_is_noticed_and_refused_unless_told(tmp_path, weights):
    recipe = dataclasses.replace(RECIPE, weights=str(weights), baseline=False, output=str(tmp_path / "run"))
    prunus.run(recipe)
    safetensors.torch.save_file(tiny.build().state_dict(), weights)
    with pytest.raises(DataError, match=r"file of weights is not the one .* --accept-changes"):
        prunus.run(recipe)
    prunus.run(recipe, accept_changes=True)
    assert any("weights changed" in note.text for note in only(tmp_path / "run", NoteRecord))


def test_weights_that_do_not_fit_are_refused_before_anything_is_trained(tmp_path, weights, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    tiny.write_recipe(tmp_path)
    assert cli.main(["run", "tiny.yaml", f"weights={weights}", "model.width=8"]) == 1
    assert "encoder.0.weight [16, 3, 3, 3] for [8, 3, 3, 3]" in capsys.readouterr().err
    assert not only(tmp_path / "runs/tiny", EpochRecord)


def test_orders_that_exclude_each_other():
    with pytest.raises(RecipeError, match="into: encoder"):
        dataclasses.replace(RECIPE, weights="w.pt", encoder_stage=EncoderStage())
    with pytest.raises(RecipeError, match="baseline: untrained"):
        dataclasses.replace(RECIPE, baseline="untrained")
