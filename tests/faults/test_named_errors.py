"""What a machine refuses is named, with what to do: a killed worker, a full disk, a removed folder, absurd numbers."""

import dataclasses
import os
import signal

import pytest
import tiny
import torch
from torch.utils.data import get_worker_info

from prunus import cli
from prunus.data import StreetData
from prunus.errors import DataError, RecordError
from prunus.pipeline.pictures import _save_picture
from prunus.records import NoteRecord, Recorder
from prunus.train.fit import fit


class Dies:
    """Data of which a worker is killed, as by the system where there is no memory left."""

    class_names = tiny.DATA.class_names

    def __init__(self, split):
        self.split = split

    def __getattr__(self, name):
        return getattr(self.split, name)

    def __len__(self):
        return len(self.split)

    def __getitem__(self, index):
        if get_worker_info() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.split[index]


class DyingData(StreetData):
    def train(self):
        return Dies(super().train())


def test_a_killed_data_worker_is_named(tmp_path):
    data = DyingData(size=(16, 32), num_train=16, num_validation=4, num_test=4)
    training = dataclasses.replace(tiny.training(tmp_path, num_workers=1), data=data)
    with pytest.raises(DataError, match=r"loads data \(\d+\) has died.*num_workers"):
        fit(training, tiny.build(), tiny.example())


def test_a_scheduler_that_stops_all_processes_does_not_kill_the_workers_first():
    from prunus.train.workers import take_signals

    child = os.fork()
    if child == 0:
        take_signals(0)
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_a_full_disk_while_records_or_pictures_are_written(tmp_path, monkeypatch):
    recorder = Recorder(tmp_path)

    def full(*arguments, **settings):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    for write in (lambda: recorder.write(NoteRecord(text="a")), lambda: recorder.truncate(0)):
        with pytest.raises(RecordError, match=r"records.jsonl cannot be written \(No space left"):
            write()
    with pytest.raises(RecordError, match=r"a.png cannot be written \(No space left on device\): make room"):
        _save_picture(torch.zeros(3, 4, 4, dtype=torch.uint8), tmp_path / "a.png")
    assert not list(tmp_path.glob("*.png")) and not list(tmp_path.glob(".*"))


def test_a_removed_working_directory_is_named(tmp_path, monkeypatch, capsys):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    try:
        assert cli.main(["run", "street_erfnet"]) == 1
    finally:
        os.chdir(tmp_path)
    assert "the current folder has been removed: change to another one" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["bench", "tiny:build", "--shape", "3,16,32", "--batch-size", "99999999999"], "Target.batch is 99999999999"),
        (["bench", "tiny:build", "--shape", "3,160000,320000"], "GB: take a smaller batch"),
        (["bench", "tiny:build", "--shape", "3,16,32", "--threads", "99999999"], "threads is 99999999: at most"),
        (["trace", "tiny:build", "--shape", "1,3,99999999999,99999999999"], "no example of the shape"),
        (["trace", "tiny:build", "--shape", f"1,3,{10**30},1"], "no example of the shape"),
        (["run", "tiny.yaml", "train.num_workers=99999999"], "train.num_workers is 99999999: at most"),
        (["run", "tiny.yaml", "train.threads=99999999"], "train.threads is 99999999: at most"),
        (["run", "tiny.yaml", "deploy.benchmark.batch_size=99999999999"], "Target.batch is 99999999999"),
        (["run", "tiny.yaml", "data.size=[9999999,9999999]"], "GB"),
    ],
)
def test_an_absurd_number_is_named_before_anything_is_made(tmp_path, monkeypatch, capsys, arguments, expected):
    tiny.write_recipe(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == 1
    errors = capsys.readouterr().err.replace("\n", " ")
    assert expected in errors and "Traceback" not in errors
    assert not list(tmp_path.glob("runs/*/checkpoints"))
