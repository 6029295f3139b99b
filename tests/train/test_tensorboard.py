import dataclasses

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from prunus.records import EpochRecord
from prunus.train.tensorboard import ScalarWriter

RECORD = EpochRecord(
    model="narrow", epoch=1, epochs=2, loss=0.5, metrics={"miou": 0.25}, learning_rate=0.125, seconds=2.0, macs=100,
    params=50, channels=16, pressed=3,
)  # fmt: skip


def test_tensorboard_reads_what_the_records_say(tmp_path):
    with ScalarWriter(tmp_path) as scalars:
        scalars.write(RECORD)
        scalars.write(dataclasses.replace(RECORD, epoch=2, loss=0.25, metrics={}))
        scalars.write(dataclasses.replace(RECORD, model="wide"))
    events = EventAccumulator(str(tmp_path / "narrow"))
    events.Reload()
    loss = [(event.step, event.value) for event in events.Scalars("training/loss")]
    assert loss == [(1, 0.5), (2, 0.25)]
    assert [event.step for event in events.Scalars("metrics/miou")] == [1]
    assert events.Scalars("training/macs")[0].value == pytest.approx(100)
    assert (tmp_path / "wide").is_dir()
