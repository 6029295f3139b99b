"""Runs in processes of their own, stopped by real signals: the same command goes on and ends at the same numbers."""

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny

from prunus import cli
from prunus.display import Display
from prunus.records import EpochRecord, EvaluationRecord, read

TESTS = str(Path(__file__).parents[1])
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([TESTS, *os.environ.get("PYTHONPATH", "").split(os.pathsep)]),
    "OMP_NUM_THREADS": "1",
}
COMMAND = [sys.executable, "-m", "prunus.cli", "run", "tiny.yaml"]


def facts(folder):
    """All that two equal runs have in common."""
    found = []
    for record in read(folder):
        if isinstance(record, EpochRecord):
            found.append(dataclasses.replace(record, seconds=0.0))
        if isinstance(record, EvaluationRecord):
            found.append(dataclasses.replace(record, training_seconds=0.0))
    return found


def stopped(here, number, model, epoch):
    """Start the run, send `number` once an epoch of `model` is recorded; return the exit code and the errors."""
    records, text = here / "runs/tiny/records.jsonl", f'"model": "{model}", "epoch": {epoch},'
    with subprocess.Popen(
        COMMAND, cwd=here, env=ENVIRONMENT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        start_new_session=True,
    ) as process:  # fmt: skip
        while process.poll() is None and not (records.exists() and text in records.read_text()):
            time.sleep(0.01)
        os.killpg(process.pid, number)  # to the whole group, as a terminal does: data workers get it too
        _, errors = process.communicate(timeout=60)
    return process.returncode, errors


def test_terminated_interrupted_and_killed_it_ends_at_the_numbers_of_an_undisturbed_run(
    tmp_path, done, monkeypatch, capsys
):
    recipe = tiny.write_recipe(tmp_path)
    recipe.write_text(recipe.read_text().replace("threads: 1", "threads: 1, num_workers: 1"))
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs" / "tiny"
    with monkeypatch.context() as patch:  # SIGTERM in this process: two starts of Python less
        patch.setattr(Display, "epoch", lambda *ignored: os.kill(os.getpid(), signal.SIGTERM))
        assert cli.main(["run", "tiny.yaml"]) == 143
    assert_stopped_well(folder, "wide", capsys.readouterr().err)
    code, errors = stopped(tmp_path, signal.SIGINT, "narrow", 1)
    assert code == 130, errors
    assert_stopped_well(folder, "narrow", errors)
    code, errors = stopped(tmp_path, signal.SIGKILL, "narrow", 2)
    assert code == -signal.SIGKILL, errors
    assert not (folder / "report.html").exists()
    assert cli.main(["run", "tiny.yaml"]) == 0
    assert facts(folder) == facts(done.folder)


def assert_stopped_well(folder, model, errors):
    assert "the same command resumes from there" in errors
    assert "Traceback" not in errors
    assert list(folder.glob(f"checkpoints/{model}/*/manifest.json"))
    assert not (folder / "report.html").exists()


@pytest.mark.slow
def test_the_same_command_on_a_finished_run_trains_nothing(tmp_path, done, monkeypatch, capsys):
    shutil.copytree(done.here, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("prunus.train.fit.step", lambda *ignored: pytest.fail("a step was taken"))
    assert cli.main(["run", "tiny.yaml"]) == 0
    assert facts(tmp_path / "runs" / "tiny") == facts(done.folder)


def test_the_report_is_written_anew(tmp_path, done, capsys):
    shutil.copytree(done.folder, tmp_path / "run")
    (tmp_path / "run" / "report.html").unlink()
    assert cli.main(["report", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run" / "report.html").is_file()
    assert "mIoU" in capsys.readouterr().out
