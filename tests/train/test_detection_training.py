"""A detector in the training loop: it shrinks, its weights are averaged, and a training that stops goes on."""

import dataclasses

import pytest
import torch

from prunus.budget import Budget
from prunus.budget.controller import Controller
from prunus.data import StreetBoxesData
from prunus.models.centre_detector import CentreDetector
from prunus.records import EpochRecord, Recorder, ShrinkRecord, read
from prunus.tasks.detection import Detection
from prunus.tasks.distillation import Distillation
from prunus.train.fit import TrainingJob, fit
from prunus.train.settings import OptimizerSettings, Train

DATA = StreetBoxesData(size=(32, 64), num_train=12, num_validation=4, num_test=4)
TRAIN = Train(
    epochs=4, batch_size=4, optimizer=OptimizerSettings(learning_rate=3e-3), threads=1, device="cpu", ema_decay=0.5
)
SHRINK = Controller(budget=Budget(macs=0.5), begin=0.25, end=0.75)


def build():
    torch.manual_seed(0)
    return CentreDetector(num_classes=3, widths=(8, 16, 16), neck=8)


def job(folder, **changes):
    return TrainingJob(
        name="narrow",
        data=DATA,
        task=Detection(most=20).bind(DATA),
        settings=dataclasses.replace(TRAIN, **changes),
        seed=0,
        folder=folder,
        recorder=Recorder(folder),
    )


def example():
    return DATA.train()[0][0][None]


class Stop(Exception):  # noqa: N818 - no error
    """Ends a training in the middle of an epoch."""


def test_it_shrinks_to_its_budget_and_goes_on_bit_by_bit(tmp_path):
    whole = fit(job(tmp_path / "whole"), build(), example(), SHRINK)
    records = read(tmp_path / "whole")
    cuts = [record for record in records if isinstance(record, ShrinkRecord)]
    epochs = [record for record in records if isinstance(record, EpochRecord)]
    assert cuts and epochs[-1].macs <= 0.5 * epochs[0].macs
    assert all("map" in record.metrics for record in epochs)

    def stop(name, step, steps, loss):
        if step == 8:  # in the third of four epochs
            raise Stop

    stopped = dataclasses.replace(job(tmp_path / "parts"), ticked=stop)
    with pytest.raises(Stop):
        fit(stopped, build(), example(), SHRINK)
    resumed = fit(job(tmp_path / "parts"), build(), example(), SHRINK)
    assert resumed.plan == whole.plan
    for name, value in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value), name


def test_a_student_takes_after_its_teacher(tmp_path):
    torch.manual_seed(3)
    teacher = CentreDetector(num_classes=3, widths=(8, 16, 16), neck=8).eval()
    task = Detection(most=20).bind(DATA)
    taught = Distillation(weight=1.0).wrap(task, teacher)
    images, target = example(), DATA.train()[0][1][None]
    student = build()
    optimizer = torch.optim.Adam(student.parameters(), lr=3e-3)
    losses = []
    for _ in range(30):
        loss = taught.training_loss(images, student(images), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
    assert all(parameter.grad is None for parameter in teacher.parameters())
