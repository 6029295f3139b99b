"""Interrupted by real signals at chosen steps, resumed in fresh objects: bit by bit the undisturbed training."""

import dataclasses
import os
import signal
import threading

import pytest
import tiny
import torch

from prunus.errors import InterruptedTrainingError
from prunus.interrupt import interruptible
from prunus.records import EpochRecord, NoteRecord, RunRecord, ShrinkRecord, read
from prunus.train import checkpoint
from prunus.train.fit import fit

SETTINGS = {"ema_decay": 0.9, "warmup_epochs": 0.5}  # all that a checkpoint must hold
STEPS = 4  # an epoch
RUN = NoteRecord(text="what the run wrote before this training")


def interrupted(folder, step, controller, number=signal.SIGTERM, **settings):
    """Train and send a signal to this process after `step`; return the error."""

    def tick(name, done, steps, loss):
        if done == step:
            os.kill(os.getpid(), number)

    training = dataclasses.replace(tiny.training(folder, **settings), ticked=tick)
    with pytest.raises(InterruptedTrainingError) as error:
        fit(training, tiny.build(), tiny.example(), controller)
    return error.value


def facts(folder):
    """What two equal trainings have in common: all records but the times."""
    return [dataclasses.replace(r, seconds=0.0) if hasattr(r, "seconds") else r for r in read(folder)]


def assert_same(first, second):
    assert first.plan == second.plan
    a, b = first.model.state_dict(), second.model.state_dict()
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folders = {}
    for name, controller in (("wide", None), ("narrow", tiny.SHRINK)):
        folders[name] = tmp_path_factory.mktemp(name)
        training = tiny.training(folders[name], name=name, **SETTINGS)
        training.recorder.write(RUN)
        folders[name] = (fit(training, tiny.build(), tiny.example(), controller), facts(folders[name]))
    return folders


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("wide", 6),
        ("narrow", 2),  # before the first pressure
        ("narrow", STEPS),  # between the last step of an epoch and its end
        ("narrow", STEPS + 2),  # under pressure
        ("narrow", 2 * STEPS),  # after the last step before a cut
        ("narrow", 2 * STEPS + 1),  # cut once
    ],
)
def test_an_interrupted_training_goes_on_bit_by_bit(tmp_path, undisturbed, name, step):
    controller = None if name == "wide" else tiny.SHRINK
    tiny.training(tmp_path).recorder.write(RUN)
    error = interrupted(tmp_path, step, controller, name=name, **SETTINGS)
    assert error.signal == signal.SIGTERM
    assert f"in epoch {(step - 1) // STEPS + 1}, after step {(step - 1) % STEPS + 1} of {STEPS}" in str(error)
    torch.manual_seed(99)  # another process would have another state
    again = fit(tiny.training(tmp_path, name=name, **SETTINGS), tiny.build(), tiny.example(), controller)
    expected, records = undisturbed[name]
    assert_same(again, expected)
    assert facts(tmp_path) == records


def test_channels_last_survives_cuts_and_an_interruption_bit_by_bit(tmp_path):
    """The images of a batch, the kernels and the moments lie as [N, H, W, C]; a file knows nothing of that."""
    settings, layouts = {**SETTINGS, "channels_last": True}, set()
    whole = fit(tiny.training(tmp_path / "whole", **settings), tiny.build(), tiny.example(), tiny.SHRINK)
    interrupted(tmp_path / "again", 2 * STEPS + 1, tiny.SHRINK, **settings)
    model = tiny.build()
    again = fit(tiny.training(tmp_path / "again", **settings), model, tiny.example(), tiny.SHRINK)
    assert_same(again, whole)
    for module in again.model.modules():
        if isinstance(module, torch.nn.Conv2d):
            layouts.add(module.weight.is_contiguous(memory_format=torch.channels_last))
    assert layouts == {True}


def test_interrupted_twice(tmp_path, undisturbed):
    tiny.training(tmp_path).recorder.write(RUN)
    interrupted(tmp_path, 5, tiny.SHRINK, signal.SIGINT, **SETTINGS)
    assert interrupted(tmp_path, 10, tiny.SHRINK, signal.SIGINT, **SETTINGS).signal == signal.SIGINT
    again = fit(tiny.training(tmp_path, **SETTINGS), tiny.build(), tiny.example(), tiny.SHRINK)
    assert_same(again, undisturbed["narrow"][0])
    assert facts(tmp_path) == undisturbed["narrow"][1]


@pytest.mark.parametrize("epoch", [1, 3])
def test_a_signal_in_the_middle_of_an_evaluation_cuts_it_short(tmp_path, undisturbed, monkeypatch, epoch):
    """Before and after a cut: the epoch's training is kept, the evaluation is repeated."""
    tiny.training(tmp_path).recorder.write(RUN)
    plain, batches = tiny.training(tmp_path, **SETTINGS), []
    update = type(plain.task.metrics()).update

    def signalled(self, output, target):
        batches.append(output)
        if len(batches) == epoch:  # the validation split is one batch
            os.kill(os.getpid(), signal.SIGTERM)
        update(self, output, target)

    with monkeypatch.context() as patch:
        patch.setattr(type(plain.task.metrics()), "update", signalled)
        with pytest.raises(InterruptedTrainingError, match=f"in epoch {epoch}, after step {STEPS} of {STEPS}"):
            fit(plain, tiny.build(), tiny.example(), tiny.SHRINK)
    assert len(batches) == epoch
    again = fit(tiny.training(tmp_path, **SETTINGS), tiny.build(), tiny.example(), tiny.SHRINK)
    assert_same(again, undisturbed["narrow"][0])
    assert facts(tmp_path) == undisturbed["narrow"][1]


def test_the_seconds_of_an_epoch_are_those_before_the_stop_too(tmp_path):
    interrupted(tmp_path, 3, None, name="wide", epochs=1)
    before = checkpoint.latest(tmp_path / "checkpoints" / "wide").state["progress"]["epoch_seconds"]
    fitted = fit(tiny.training(tmp_path, name="wide", epochs=1), tiny.build(), tiny.example())
    (record,) = [record for record in read(tmp_path) if isinstance(record, EpochRecord)]
    assert 0 < before < record.seconds == fitted.seconds


def test_a_signal_during_the_last_evaluation_is_not_lost(tmp_path, undisturbed):
    tiny.training(tmp_path).recorder.write(RUN)

    def shown(record):
        if record.epoch == record.epochs:
            os.kill(os.getpid(), signal.SIGTERM)

    training = dataclasses.replace(tiny.training(tmp_path, **SETTINGS), shown=shown)
    with pytest.raises(InterruptedTrainingError, match="the same command resumes"):
        fit(training, tiny.build(), tiny.example(), tiny.SHRINK)
    again = fit(tiny.training(tmp_path, **SETTINGS), tiny.build(), tiny.example(), tiny.SHRINK)
    assert_same(again, undisturbed["narrow"][0])
    assert facts(tmp_path) == undisturbed["narrow"][1]


class KilledError(Exception):
    """Stands for kill -9: nothing is written on the way out."""


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("moment", ["step", "record"])
def test_killed_without_warning(tmp_path, undisturbed, every, moment):
    """In the middle of epoch 3, or between its record and its checkpoint."""

    def tick(name, done, steps, loss):
        if moment == "step" and done == 2 * STEPS + 2:
            raise KilledError

    def shown(record):
        if moment == "record" and record.epoch == 3:
            raise KilledError

    plain = tiny.training(tmp_path, checkpoint_every=every, **SETTINGS)
    plain.recorder.write(RUN)
    with pytest.raises(KilledError):
        fit(dataclasses.replace(plain, ticked=tick, shown=shown), tiny.build(), tiny.example(), tiny.SHRINK)
    again = fit(plain, tiny.build(), tiny.example(), tiny.SHRINK)
    assert_same(again, undisturbed["narrow"][0])
    assert facts(tmp_path) == undisturbed["narrow"][1]


def test_a_damaged_checkpoint_costs_an_epoch_and_is_noted(tmp_path, undisturbed):
    tiny.training(tmp_path).recorder.write(RUN)
    interrupted(tmp_path, 2 * STEPS + 2, tiny.SHRINK, **SETTINGS)
    newest = checkpoint.latest(tmp_path / "checkpoints" / "narrow").path
    (newest / checkpoint.TENSORS).write_bytes(b"")
    again = fit(tiny.training(tmp_path, **SETTINGS), tiny.build(), tiny.example(), tiny.SHRINK)
    assert_same(again, undisturbed["narrow"][0])
    notes = [record.text for record in read(tmp_path) if isinstance(record, NoteRecord) and record != RUN]
    assert len(notes) == 1
    assert newest.name in notes[0]
    assert [r for r in facts(tmp_path) if isinstance(r, EpochRecord | ShrinkRecord | RunRecord)] == (
        [r for r in undisturbed["narrow"][1] if isinstance(r, EpochRecord | ShrinkRecord | RunRecord)]
    )


def test_a_finished_training_is_not_repeated(tmp_path):
    first = fit(tiny.training(tmp_path), tiny.build(), tiny.example(), tiny.SHRINK)
    before = read(tmp_path)
    training = dataclasses.replace(tiny.training(tmp_path), ticked=lambda *seen: pytest.fail("a step was taken"))
    assert_same(fit(training, tiny.build(), tiny.example(), tiny.SHRINK), first)
    assert read(tmp_path) == before


def test_the_handlers_are_as_before_afterwards_and_the_second_signal_is_theirs():
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with interruptible() as interrupt:
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupt.number == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert {number: signal.getsignal(number) for number in before} == before


def test_outside_the_main_thread_nothing_is_caught():
    seen = []

    def body():
        with interruptible() as interrupt:
            seen.append(interrupt.number)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert seen == [None]
