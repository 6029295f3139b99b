"""What the README shows runs: its Python as it stands, its commands as far as the recipes that they name."""

import re
import shlex
from pathlib import Path

import pytest

from prunus import cli, pipeline, recipe

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8") if (ROOT / "README.md").exists() else ""
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", TEXT, flags=re.DOTALL)
COMMANDS = [
    line.partition("#")[0].strip()
    for language, block in BLOCKS
    if language in ("", "sh", "bash", "console")
    for line in block.splitlines()
    if line.strip()
]
MAKE_TARGETS = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)


def test_the_python_runs_from_top_to_bottom(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = [block for language, block in BLOCKS if language == "python"]
    assert blocks
    names: dict[str, object] = {"__name__": "readme"}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)


def test_there_are_commands():
    assert "make demo" in COMMANDS and "make test" in COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_one_that_exists(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    program, *arguments = shlex.split(command)
    if program == "make":
        assert set(arguments) <= set(MAKE_TARGETS)
    if program == "prunus":
        options = cli.parser().parse_args(arguments)
        if arguments[0] == "run":
            recipe.resolve(pipeline.Recipe, cli.find_recipe(options.recipe), options.overrides)


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\((?!https?:|#)([^)#]+)", TEXT))))
def test_a_link_leads_somewhere(link):
    assert (ROOT / link).exists()


def test_nothing_is_left_to_fill_in():
    assert not re.findall(r"[A-Z]+_PLACEHOLDER|TODO|FIXME", TEXT)
