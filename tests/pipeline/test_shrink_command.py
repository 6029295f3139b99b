"""`prunus shrink`: a trained network, its weights, a budget and a recipe's data."""

import re

import pytest
import safetensors.torch
import tiny
import torch

import prunus
from prunus import cli
from prunus.cli.arguments import parser
from prunus.cli.shrink_recipe import overrides_of
from prunus.pipeline import Recipe
from prunus.recipe import load
from prunus.records import EpochRecord, EvaluationRecord, read

SHRINK = ["shrink", "tiny:TinySegmenter", "--weights", "w.safetensors", "--recipe", "tiny.yaml"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny.write_recipe(tmp_path)
    torch.manual_seed(5)
    trained = tiny.TinySegmenter(num_classes=len(tiny.DATA.class_names), width=24)
    safetensors.torch.save_file(trained.state_dict(), tmp_path / "w.safetensors")
    return tmp_path, trained


def test_a_trained_network_is_shrunk_to_a_budget_in_a_third_of_the_epochs(here, capsys):
    folder, trained = here
    assert cli.main([*SHRINK, "--budget", "macs=0.5", "--set", "width=24", "report_samples=0"]) == 0
    run = folder / "runs" / "tiny-shrunk"
    assert str(run.relative_to(folder)) in capsys.readouterr().out
    found = list(read(run))
    epochs = [record for record in found if isinstance(record, EpochRecord)]
    assert {record.model for record in epochs} == {"narrow"} and len(epochs) == 2  # of 4
    wide, narrow = (record for record in found if isinstance(record, EvaluationRecord))
    assert wide.params == sum(each.numel() for each in trained.parameters())
    assert narrow.macs <= 0.5 * wide.macs
    build = lambda: tiny.TinySegmenter(num_classes=len(tiny.DATA.class_names), width=24)  # noqa: E731
    assert prunus.trace(prunus.load(run / "narrow", build), tiny.example()).macs() == narrow.macs


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--budget", "macs=0.5"], r"\[24, 3, 3, 3\] for \[16, 3, 3, 3\]"),
        (["--budget", "macs"], "--budget macs: write key=value"),
        (["--budget", "mac=0.5", "--set", "width=24"], "did you mean `macs`"),
        (["--budget", "macs=0.5", "--set", "width=24", "--weights", "absent.pt"], "absent.pt"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_trained(here, capsys, arguments, told):
    assert cli.main([*SHRINK, *arguments]) == 1
    error = capsys.readouterr().err
    assert re.search(told, error), error
    assert not list(here[0].glob("runs/*/checkpoints"))


@pytest.mark.parametrize(
    "own", ["", "shrink: {budget: {macs: 0.3, min_share: 0.1}}\n", "shrink: {budgets: [0.9, 0.8]}\n"]
)
def test_the_budget_of_the_command_takes_the_place_of_the_recipes(here, own):
    folder, _ = here
    recipe = folder / "tiny.yaml"
    recipe.write_text(recipe.read_text() + own)
    for given in ({"params": 0.5}, {"latency": 0.5}, {"macs": 0.5, "params": 0.6}):
        asked = [part for name, value in given.items() for part in ("--budget", f"{name}={value}")]
        chosen = load(Recipe, recipe, overrides_of(parser().parse_args([*SHRINK, *asked]), recipe))
        assert chosen.shrink.sequence == (prunus.Budget(**given),)
