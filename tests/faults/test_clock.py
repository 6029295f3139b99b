"""The clock jumps by years, back and forth, in the middle of a run; the order of the checkpoints is not the clock's."""

import dataclasses
import os
import time

import pytest
import tiny
import torch

from prunus.errors import InterruptedTrainingError
from prunus.records import EpochRecord, read
from prunus.train import checkpoint
from prunus.train.fit import fit

YEAR = 365 * 86400.0


def test_times_that_jump_change_neither_what_is_resumed_nor_the_seconds_told(tmp_path, monkeypatch):
    undisturbed = fit(tiny.training(tmp_path / "other"), tiny.build(), tiny.example(), tiny.SHRINK).model
    now, shift = time.time, [0.0]
    monkeypatch.setattr(time, "time", lambda: now() + shift[0])

    def jump(name, step, steps, loss):
        shift[0] = YEAR * (-1) ** step * step
        if step == 10:
            os.kill(os.getpid(), 15)

    training = tiny.training(tmp_path / "run")
    with pytest.raises(InterruptedTrainingError):
        fit(dataclasses.replace(training, ticked=jump), tiny.build(), tiny.example(), tiny.SHRINK)
    paths = sorted(training.checkpoints.iterdir())
    for age, path in enumerate(paths):  # the newest looks the oldest, and lies in the past of the others
        for file in (*path.iterdir(), path):
            os.utime(file, (now() - age * YEAR,) * 2)
    assert checkpoint.latest(training.checkpoints).path == paths[-1]
    again = fit(training, tiny.build(), tiny.example(), tiny.SHRINK).model
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), undisturbed.parameters(), strict=True))
    seconds = [record.seconds for record in read(tmp_path / "run") if isinstance(record, EpochRecord)]
    assert len(seconds) == 4 and all(0 < value < 60 for value in seconds)
