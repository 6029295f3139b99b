"""INT8 in a run and by `prunus quantize`: recorded, shown, and refused below the user's floor."""

import dataclasses
import os
import shutil
import signal
from pathlib import Path

import pytest
from test_run import RECIPE, at, only

import prunus
from prunus import cli, pipeline
from prunus.deploy import Quantize
from prunus.errors import DeployError, QuantizationError, RecipeError
from prunus.interrupt import Interrupted
from prunus.pipeline import quantization
from prunus.records import QuantizationRecord

ONE = dataclasses.replace(RECIPE.train, epochs=1)
DEPLOY = dataclasses.replace(RECIPE.deploy, quantize=Quantize(samples=6, max_drop=100))
SHORT = {"train": ONE, "shrink": None, "baseline": False, "deploy": DEPLOY}


def test_the_narrow_network_is_quantised_recorded_and_shown(tmp_path):
    folder = prunus.run(at(tmp_path, **SHORT))
    (found,) = only(folder, QuantizationRecord)
    assert (found.model, found.backend, found.metric, found.images) == ("narrow", "onnxruntime", "miou", 4)
    assert (found.samples, found.seed, found.passed) == (6, 0, True)
    assert 0 <= found.int8 <= 1 and abs(found.int8 - found.float32) < 0.2
    assert found.median_ms_int8 > 0 and found.median_ms_float32 > 0
    assert (folder / found.file).stat().st_size == found.bytes_int8
    page = (folder / "report.html").read_text(encoding="utf-8")
    row = page.partition('<tr data-int8="narrow">')[2].partition("</tr>")[0]
    assert f'value="{found.int8!r}"' in row and f'value="{found.bytes_int8!r}"' in row and "kept" in row
    assert "INT8: narrow on ONNX Runtime" in page


def test_a_network_that_loses_more_than_allowed_is_refused_after_the_report_is_written(tmp_path, monkeypatch):
    answers = iter((0.9, 0.5))
    monkeypatch.setattr(quantization.Quantizing, "_metric", lambda *ignored: next(answers))
    deploy = dataclasses.replace(DEPLOY, quantize=Quantize(samples=2, max_drop=39.9))
    with pytest.raises(QuantizationError, match=r"40\.00 percentage points less .* max_drop allows 39\.9"):
        prunus.run(at(tmp_path, **{**SHORT, "deploy": deploy}))
    (found,) = only(tmp_path, QuantizationRecord)
    assert not found.passed and not (tmp_path / found.file).exists()
    assert "refused: more than 39.9 points" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_what_cannot_be_quantised_is_refused_before_anything_is_trained(tmp_path):
    watch = pipeline.Watch(step=lambda *seen: pytest.fail("trained before it was refused"))
    deploy = dataclasses.replace(DEPLOY, quantize=Quantize(backends=("torch",)))
    with pytest.raises(DeployError, match="torch does not support INT8"):
        prunus.run(at(tmp_path, **{**SHORT, "deploy": deploy}), watch=watch)
    with pytest.raises(RecipeError, match="leave one of the two out"):
        dataclasses.replace(DEPLOY, decode=True)


def test_the_command_quantises_the_file_of_a_run(done, tmp_path, monkeypatch, capsys):
    shutil.copytree(done.here, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    command = ["quantize", "runs/tiny/narrow.onnx", "--data", "runs/tiny", "--samples", "4", "--trust"]
    assert cli.main([*command, "--max-drop", "100"]) == 0
    assert "runs/tiny/narrow-int8-onnxruntime.onnx: " in capsys.readouterr().out
    assert (tmp_path / "runs/tiny/narrow-int8-onnxruntime.onnx").is_file()
    answers = iter((0.9, 0.5))
    monkeypatch.setattr(quantization.Quantizing, "_metric", lambda *ignored: next(answers))
    assert cli.main([*command, "--output", "other.onnx"]) == 1
    assert "its file is refused" in capsys.readouterr().err
    assert not (tmp_path / "other.onnx").exists()


def test_a_file_is_there_once_it_has_been_tested(done, tmp_path, monkeypatch, capsys):
    shutil.copytree(done.here, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    command = ["quantize", "runs/tiny/narrow.onnx", "--data", "tiny.yaml", "--samples", "2", "--max-drop", "100"]

    def stopped(*ignored):
        assert not (tmp_path / "new/int8.onnx").exists()
        raise Interrupted(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(quantization.Quantizing, "_metric", stopped)
        assert cli.main([*command, "--output", "new/int8.onnx"]) == 143
    assert not list((tmp_path / "new").iterdir())
    assert cli.main([*command, "--output", "new/int8.onnx"]) == 0
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["int8.onnx"]
    before = (tmp_path / "runs/tiny/narrow.onnx").read_bytes()
    assert cli.main([*command, "--output", "runs/tiny/narrow.onnx"]) == 1
    assert "is the network in float32 itself" in capsys.readouterr().err
    os.mkfifo("pipe.onnx")
    assert cli.main([*command, "--output", "pipe.onnx"]) == 1
    assert "is not a regular file and is not replaced" in capsys.readouterr().err
    assert Path("pipe.onnx").is_fifo()
    assert (tmp_path / "runs/tiny/narrow.onnx").read_bytes() == before
    assert cli.main([*command, "data.size=[32,32]"]) == 1
    assert "takes inputs (3, 16, 32), and the data give (3, 32, 32)" in capsys.readouterr().err.replace("\n", " ")
