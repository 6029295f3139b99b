"""The pages of docs/ that show code: their Python runs, their YAML and commands are ones that exist."""

import re
import shlex
from pathlib import Path

import pytest
import tiny
import yaml

from prunus import cli, pipeline, recipe
from prunus.deploy import Quantize
from prunus.gate import Gate, Protect
from prunus.models.weights import Weights

ROOT = Path(__file__).parents[1]
PAGES = ("detection", "gate", "int8", "multi_task", "trained_networks")


def blocks(page, language):
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


@pytest.mark.parametrize("page", PAGES)
def test_its_python_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = blocks(page, "python")
    assert found
    for block in found:
        exec(compile(block, f"{page}.md", "exec"), {"__name__": page})


@pytest.mark.parametrize("page", PAGES)
def test_its_commands_exist(page):
    lines = [line.partition("#")[0].strip() for block in blocks(page, "bash") for line in block.splitlines()]
    assert lines
    for line in lines:
        options = cli.parser().parse_args(shlex.split(line)[1:])
        if options.command.__name__ == "run":
            recipe.resolve(pipeline.Recipe, cli.find_recipe(options.recipe), options.overrides)


def test_the_yaml_of_detection_is_a_recipe(tmp_path):
    (block,) = blocks("detection", "yaml")
    path = tmp_path / "recipe.yaml"
    data = {"class_path": "prunus.data.StreetBoxesData", "init_args": {"size": [64, 64]}}
    path.write_text(yaml.safe_dump({**yaml.safe_load(block), "name": "signs", "data": data}))
    loaded = recipe.load(pipeline.Recipe, path)
    assert type(loaded.task.heads).__name__ == "TorchvisionHeads"
    assert loaded.model(num_classes=3).head is not None


def test_the_yaml_of_several_tasks_is_a_recipe(tmp_path):
    (block,) = blocks("multi_task", "yaml")
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(block), "name": "views", "model": "prunus.models.erfnet.ERFNet"}))
    loaded = recipe.load(pipeline.Recipe, path)
    assert list(loaded.task.tasks) == list(loaded.data.by_task()) == ["road", "weather"]
    assert loaded.task.tasks["weather"].output == "label"


def test_the_yaml_of_trained_networks_names_weights():
    first, second = (yaml.safe_load(block) for block in blocks("trained_networks", "yaml"))
    assert isinstance(first["weights"], str)
    settings = second["weights"]
    assert Weights(**{**settings, "leave_out": tuple(settings["leave_out"])}).into == "encoder"
    assert second["baseline"] == "untrained"


def test_the_yaml_of_int8_is_a_deployment():
    (block,) = (yaml.safe_load(block) for block in blocks("int8", "yaml"))
    settings = block["deploy"]["quantize"]
    assert Quantize(**{**settings, "backends": tuple(settings["backends"])}) == Quantize()


def test_the_family_in_the_docs_is_one(tmp_path, monkeypatch):
    (shrink,) = (yaml.safe_load(block) for block in blocks("family", "yaml"))
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(tiny.RECIPE), **shrink}))
    assert [budget.macs for budget in recipe.load(pipeline.Recipe, path, ["train.epochs=20"]).shrink.sequence] == [
        0.7, 0.5, 0.3,
    ]  # fmt: skip
    (block,) = blocks("family", "python")
    exec(compile(block, "family.md", "exec"), {"__name__": "family"})


def test_the_yaml_of_the_gate_is_a_gate():
    gate, protect = (yaml.safe_load(block) for block in blocks("gate", "yaml"))
    settings = gate["gate"]
    assert Protect(**{key: tuple(value) if key != "weight" else value for key, value in protect["protect"].items()})
    assert Gate(**{**settings, "per": tuple(settings["per"])}).min_samples == 30
