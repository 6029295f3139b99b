"""What came from somebody else is read, not run: modules in the current folder, runs of others, pictures, links."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
from PIL import Image

from prunus import cli, pipeline, report, trust
from prunus.data import Data
from prunus.data.files import read_image
from prunus.deploy import export_onnx
from prunus.errors import CheckpointError, DataError, DeployError, RecipeError, RecordError
from prunus.pipeline.run_folder import prepare_run_folder
from prunus.recipe import build, modules
from prunus.recipe.definitions import is_subclass
from prunus.records import NoteRecord, Recorder, SampleRecord
from prunus.train.lock import lock
from prunus.writing import write_whole

SHADOWS = ("jinja2", "torch", "onnx", "queue", "rich", "plotly", "numpy", "yaml", "markupsafe", "safetensors")
ROOT = str(Path(cli.__file__).parents[2])


STARTS = {
    "python -m": ["-m", "prunus.cli"],  # which puts the current folder first
    "prunus": ["-P", "-c", "import sys; from prunus.cli import main; sys.exit(main())"],
}
TRACE = ["trace", "mine:TinySegmenter", "--set", "num_classes=3", "--shape", "1,3,16,32"]


@pytest.mark.parametrize(
    ("start", "arguments"),
    [("python -m", ["report", "."]), ("prunus", ["report", "."]), ("python -m", TRACE)],
)
def test_a_module_in_the_current_folder_is_not_run_in_the_place_of_an_installed_one(tmp_path, start, arguments):
    for name in SHADOWS:
        (tmp_path / f"{name}.py").write_text("open('ran', 'w').close()\nraise SystemExit(77)\n")
    shutil.copy(tiny.__file__, tmp_path / "mine.py")  # but a network's own module is found there
    Recorder(tmp_path).write(NoteRecord(text="something"))
    command = [sys.executable, *STARTS[start], *arguments]
    environment = {**os.environ, "PYTHONPATH": ROOT}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "ran").exists()
    assert arguments != TRACE or "encoder.0" in done.stdout


def test_a_module_that_has_no_such_name_is_not_imported(tmp_path, monkeypatch):
    (tmp_path / "harmful.py").write_text("import pathlib\npathlib.Path('ran').touch()\nclass Net: ...\n")
    package = tmp_path / "deep"
    package.mkdir()
    (package / "__init__.py").write_text("raise ZeroDivisionError\n")
    (package / "inner.py").write_text("Net = 3\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for path, error in (
        ("harmful.Other", AttributeError),
        ("deep.inner.Other", AttributeError),
        ("deep.inner.Net", ImportError),
        ("..", ImportError),
        ("a b.c", ImportError),
        ("no_such_module.Net", ImportError),
        ("os.nothing", AttributeError),
    ):
        with pytest.raises(error):
            modules.named(path)
    assert not (tmp_path / "ran").exists()
    assert modules.named("harmful.Net").__name__ == "Net"
    assert (tmp_path / "ran").exists()


SOURCES = {
    "unfit": """
import pathlib, typing
import kin.base as base, os.path
from kin import Near
from prunus.data import SegmentationData as Scenes
pathlib.Path("ran").touch()
T = typing.TypeVar("T")
class Other: ...
class Plain(Other, typing.Generic[T]): ...
class Own(Scenes): ...
class Deep(base.Middle[int]): ...
class Close(Near): ...
class Loop(Loop): ...
class Path(os.path.Nothing): ...
class Made(type("X", (), {})): ...
def function(): ...
Number, Alias, Made2 = 3, Own, Own()
Again = Own
Text = "Own"
try:
    class Tried: ...
except ImportError:
    Tried = None
""",
    "kin/__init__": "from .base import Middle as Near\nopen('ran', 'w')\n",
    "kin/base": "from prunus.data import Data\nimport typing\nclass Middle(Data, typing.Generic[typing.T]): ...\n",
    "star": "from unfit import *\nopen('ran', 'w')\n",
}


@pytest.mark.parametrize(
    ("name", "fits"),
    [
        *(("unfit." + name, False) for name in ("Other", "Plain", "function", "Text")),
        *(("unfit." + name, True) for name in ("Own", "Deep", "Close", "Again")),
        *(("unfit." + name, None) for name in ("Loop", "Path", "Made", "Number", "Alias", "Tried")),
        ("star.Own", None),
        ("os.system", False),
        ("no_such_module.Net", None),
    ],
)
def test_a_module_whose_class_does_not_fit_is_not_imported(tmp_path, monkeypatch, name, fits):
    (tmp_path / "kin").mkdir()
    for module, source in SOURCES.items():
        (tmp_path / f"{module}.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert is_subclass(name, Data) is fits
    if fits is False:
        with pytest.raises(modules.MisfitError):
            modules.named(name, Data)
        for key in ("data", "model") if name == "unfit.function" else ("data",):
            with pytest.raises(RecipeError, match=r"must name a Data|names no class"):
                written = {"name": "a", "data": "prunus.data.StreetData", "model": "tiny.TinySegmenter", key: name}
                build(pipeline.Recipe, written)
    assert not (tmp_path / "ran").exists()
    assert "unfit" not in sys.modules and "kin" not in sys.modules


@pytest.fixture
def run_of_mine(tmp_path, monkeypatch):
    """The folder of a run as `run` begins it, and nothing else in it."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs" / "mine"
    folder.mkdir(parents=True)
    prepare_run_folder(folder, {"name": "mine", "model": "tiny.TinySegmenter"})
    trust.sign(folder)
    return folder


def test_the_folder_of_a_run_is_code_only_if_it_is_the_users_own_or_trusted(run_of_mine, monkeypatch, capsys):
    assert trust.is_own(run_of_mine)
    trust.require(run_of_mine, trusted=False)
    moved = run_of_mine.rename(run_of_mine.with_name("moved"))
    assert trust.is_own(moved)
    recipe = moved / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("tiny.TinySegmenter", "harmful.Net"))
    assert not trust.is_own(moved)
    trust.require(moved, trusted=True)
    for command in (["trace"], ["export", "--output", "a.onnx"], ["bench"]):
        assert cli.main([*command, str(moved)]) == 1
        error = capsys.readouterr().err
        assert "is not a run of yours" in error and "--trust" in error
    assert cli.main(["trace", "--trust", str(moved)]) == 1
    assert "not the folder of a finished run" in capsys.readouterr().err  # what is wrong with it is looked at now
    monkeypatch.setenv("XDG_STATE_HOME", str(moved / "other"))  # somebody else's run
    with pytest.raises(RecipeError, match="--trust"):
        trust.require(run_of_mine.parent / "moved", trusted=False)


@pytest.mark.parametrize(("answer", "accepted"), [("y\n", True), ("\n", False), ("no\n", False)])
def test_at_a_terminal_it_is_asked(run_of_mine, monkeypatch, capsys, answer, accepted):
    (run_of_mine / trust.SIGNATURE).unlink()
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stdin.readline", lambda: answer, raising=False)
    if accepted:
        trust.require(run_of_mine, trusted=False)
    else:
        with pytest.raises(RecipeError):
            trust.require(run_of_mine, trusted=False)
    assert "Continue?" in capsys.readouterr().err


def test_a_picture_that_is_a_program_or_too_large_is_refused(tmp_path):
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    with pytest.raises(DataError, match="cannot be read as an image"):
        read_image(tmp_path / "a.png")
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "b.png")
    assert read_image(tmp_path / "b.png").shape == (20, 30, 3)
    with pytest.raises(DataError, match=r"30 x 20 pixels, and at most 599 .* data.max_pixels"):
        read_image(tmp_path / "b.png", max_pixels=599)


def test_links_in_a_runs_folder_are_not_written_through(tmp_path):
    victim, run = tmp_path / "victim", tmp_path / "run"
    victim.write_text("mine")
    run.mkdir()
    pid = os.getpid()
    for name in (
        ".lock",
        f".recipe.yaml.{pid}.writing",
        f".records.jsonl.{pid}.writing",
        "records.jsonl",
        "report.html",
    ):
        (run / name).symlink_to(victim)
    (run / "recipe.yaml").symlink_to(victim)
    with pytest.raises(CheckpointError, match="not writable"), lock(run):
        pass
    prepare_run_folder(run, {"name": "tiny"})
    with pytest.raises(RecordError):
        Recorder(run).write(NoteRecord(text="a"))
    (run / "records.jsonl").unlink()
    Recorder(run).write(NoteRecord(text="a"))
    Recorder(run).truncate(1)
    assert report.write(run).is_file() and not (run / "report.html").is_symlink()
    assert victim.read_text() == "mine"


@pytest.mark.parametrize("name", ["checkpoints", "checkpoints/narrow", "images", "narrow", "tensorboard", "other"])
def test_a_run_does_not_write_into_linked_folders(tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    tiny.write_recipe(tmp_path)
    (tmp_path / "mine").mkdir()
    place = tmp_path / "run" / name
    place.parent.mkdir(parents=True)
    place.symlink_to(tmp_path / "mine")
    assert cli.main(["run", "tiny.yaml", "output=run"]) == 1
    assert f"run/{name} is a symbolic link" in capsys.readouterr().err
    assert not list((tmp_path / "mine").iterdir())


def test_links_in_a_runs_folder_are_not_shown(tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(b"\x89PNG\r\n\x1a\nsecret")
    run = tmp_path / "run"
    run.mkdir()
    Recorder(run).write(SampleRecord(index=0, image="a.png", truth="../secret", wide=None, narrow="/dev/zero"))
    (run / "a.png").symlink_to(secret)
    (run / "recipe.yaml").symlink_to(secret)
    other = tmp_path / "other"
    other.mkdir()
    (other / "records.jsonl").symlink_to(run / "records.jsonl")
    with pytest.raises(RecordError, match="it is a symbolic link, which is not followed"):
        report.write(other)
    text = report.write(run).read_text()
    assert "iVBOR" not in text and "secret" not in text.replace("../secret", "")


def test_what_is_no_regular_file_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/null")
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/null"), tmp_path / "link"):
        with pytest.raises(DeployError, match="is not a regular file and is not replaced: give another path"):
            export_onnx(tiny.build(), tiny.example(), path)
        with pytest.raises(DeployError, match="is not a regular file and is not replaced: give another path"):
            write_whole(path, b"")
    assert not Path("/dev/null").is_file() and (tmp_path / "pipe").is_fifo() and (tmp_path / "link").is_symlink()
    (tmp_path / "file").write_bytes(b"theirs")
    (tmp_path / "other").symlink_to(tmp_path / "file")
    write_whole(tmp_path / "other", b"mine")
    assert (tmp_path / "other").read_bytes() == b"mine" and (tmp_path / "file").read_bytes() == b"theirs"


def test_a_pipe_is_no_place_for_a_table(tmp_path, capsys):
    os.mkfifo(tmp_path / "table.csv")
    assert cli.main(["bench", "torch.nn:ReLU", "--output", str(tmp_path / "table.csv")]) == 1
    assert "is not a regular file and is not replaced" in capsys.readouterr().err
    assert (tmp_path / "table.csv").is_fifo()


def test_files_that_never_end_are_not_read(tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe.yaml")
    for path in (tmp_path / "pipe.yaml", Path("/dev/zero")):
        assert cli.main(["run", str(path)]) == 1
        assert "not a regular file" in capsys.readouterr().err
    os.mkfifo(tmp_path / "pipe.onnx")
    assert cli.main(["bench", f"a={tmp_path / 'pipe.onnx'}"]) == 1
    assert "not a regular file" in capsys.readouterr().err
    os.mkfifo(tmp_path / ".lock")
    with pytest.raises(CheckpointError, match="not a regular file"), lock(tmp_path):
        pass
    (tmp_path / "large.yaml").write_text(json.dumps({"a": "x" * 2**19}))
    assert cli.main(["run", str(tmp_path / "large.yaml")]) == 1
    assert "at most" in capsys.readouterr().err
