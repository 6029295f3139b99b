"""`fit`: the training loop; with a controller, the network shrinks to its budget while it learns."""

import dataclasses
import functools
import signal
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from prunus.budget.controller import Controller
from prunus.data.interface import Split
from prunus.errors import InterruptedTrainingError
from prunus.interrupt import Interrupt, interruptible
from prunus.records import EpochRecord, NoteRecord
from prunus.surgery import Plan
from prunus.train.background import Background
from prunus.train.batch_growth import activations, with_grown_batch
from prunus.train.batches import steps_per_epoch, training_batches
from prunus.train.begin import begin
from prunus.train.distributed import Question
from prunus.train.evaluate import evaluate
from prunus.train.job import TrainingJob
from prunus.train.resume import reschedule
from prunus.train.step import step
from prunus.train.training_state import TrainingState, branch, save
from prunus.train.workers import death_named

__all__ = ["Fitted", "TrainingJob", "fit"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fitted:
    """A trained network; `plan` makes `model` from the network as built."""

    model: nn.Module
    plan: Plan
    seconds: float
    records: int  # number of records of the run when the training ended


def fit(training: TrainingJob, model: nn.Module, inputs: Tensor, controller: Controller | None = None) -> Fitted:
    """Train `model`, the network as built, and return the trained network.

    Resume from the folder's last checkpoint, even in the middle of an epoch; on Ctrl-C or SIGTERM, write one and stop.

    Args:
        training: the data, task, settings and folder.
        model: trained in place if no channels may be removed; else it is copied.
        inputs: example inputs [N, C, H, W], for the trace and the exactness checks.
        controller: shrinks the network to its budget; None: the network does not shrink.

    Raises:
        BudgetError: the budget cannot be met; raised before any training.
        TrainingError: the loss or a gradient is not finite (names the step), or the training was interrupted.
    """
    settings, processes = training.settings, training.processes
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    split, validation = training.data.train(), training.data.validation()
    steps = steps_per_epoch(len(split), settings.batch_size)
    inputs = inputs.to(settings.torch_device())
    state = begin(training, model, inputs, steps, controller)
    asked = training
    with Background() as background, interruptible() as interrupt:
        stop_if_asked = functools.partial(_stop_if_asked, Question(processes), interrupt)
        while state.progress.epoch < settings.epochs:
            try:
                training = _with_current_batch(asked, training, state, inputs, len(split))
                steps = steps_per_epoch(len(split), training.settings.batch_size)
                _begin_epoch(state, steps)
                if not state.progress.cut:  # else stopped during its evaluation
                    with death_named():
                        _train_epoch(state, training, split, steps, stop_if_asked)
                    _cut(state, training, inputs)
                    _record_skipped(state, training, split)
                best = _end_epoch(state, training, validation, steps, stop_if_asked)
            except _Stop:
                save(state, training, background)
                background.wait()
                where = f"in epoch {state.progress.epoch + 1}, after step {state.progress.step} of {steps}"
                raise _interrupted(interrupt, where) from None
            branch(state, training, background)
            epoch = state.progress.epoch
            if best or epoch == settings.epochs or epoch % settings.checkpoint_every == 0:
                save(state, training, background, best=best)
        background.wait()
        if processes.any(interrupt.number is not None):  # interrupted during the last evaluation
            raise _interrupted(interrupt, f"after the training ({training.name})")
    progress = state.progress
    return Fitted(model=state.evaluated, plan=state.plan, seconds=progress.seconds, records=progress.records)


class _Stop(Exception):  # noqa: N818 - no error
    """This process or another one was asked to stop the training."""


def _stop_if_asked(question: Question, interrupt: Interrupt) -> None:
    if question.ask(interrupt.number is not None):
        raise _Stop


def _interrupted(interrupt: Interrupt, where: str) -> InterruptedTrainingError:
    return InterruptedTrainingError(
        interrupt.number or signal.SIGTERM,
        f"stopped {where}; the checkpoint is written: the same command resumes from there",
    )


def _with_current_batch(
    asked: TrainingJob, running: TrainingJob, state: TrainingState, inputs: Tensor, num_samples: int
) -> TrainingJob:
    """Return the job `asked`, with the batch that the network's present size allows if it may grow."""
    if not asked.settings.grow_batch:
        return asked
    progress, now = state.progress, activations(state.model, inputs)
    progress.activations = progress.activations or now
    training = with_grown_batch(asked, progress.activations / now)
    if training.settings.batch_size != running.settings.batch_size:
        reschedule(state, training.settings, steps_per_epoch(num_samples, training.settings.batch_size))
    return training


def _begin_epoch(state: TrainingState, steps: int) -> None:
    """Choose the groups to press in an epoch of `steps` steps, unless the epoch has begun."""
    began, progress = time.perf_counter(), state.progress
    if state.shrinker is not None and not progress.cut:
        state.shrinker.begin_period(steps)
    if progress.step == 0:
        progress.pressed = state.num_pressed
        progress.epoch_seconds += time.perf_counter() - began


def _train_epoch(
    state: TrainingState,
    training: TrainingJob,
    split: Split,
    steps: int,
    stop_if_asked: Callable[[], None],
) -> None:
    """Take the remaining steps of the running epoch."""
    progress, settings, began = state.progress, training.settings, time.perf_counter()
    state.network.train()
    loader = training_batches(split, settings, training.seed, progress.epoch, progress.step, training.processes)
    for inputs, target in loader:
        loss = step(state, training, inputs, target)
        progress.step += 1
        progress.loss += loss
        now = time.perf_counter()
        progress.epoch_seconds, began = progress.epoch_seconds + now - began, now
        training.ticked(training.name, progress.epoch * steps + progress.step, settings.epochs * steps, loss)
        stop_if_asked()


def _cut(state: TrainingState, training: TrainingJob, inputs: Tensor) -> None:
    """Shrink the network at the end of a segment, or after every epoch if there are penalties."""
    progress, shape = state.progress, state.shape
    progress.cut, epoch = True, progress.epoch + 1
    if shape is not None:
        shape.after_epoch_(progress.learning_rate, state.optimizer)
    record = None
    if state.shrinker is not None:
        record = state.shrinker.end_period(zeros=shape is not None)
    elif shape is not None:
        result = state.live.cut_zeros((), f"after the cut at the end of epoch {epoch}", epoch=epoch)
        record = None if result is None else result.record
    if record is not None:
        state.network = training.processes.wrapped(state.model)
        state.regularize(inputs)
        progress.epoch_seconds += record.seconds
        training.recorder.write(dataclasses.replace(record, model=training.name))


def _record_skipped(state: TrainingState, training: TrainingJob, split: Split) -> None:
    """Record how many training samples could not be read, whenever the number has grown."""
    said = split.unreadable()
    if len(said) > state.progress.skipped:
        text = f"{len(said)} of {len(split)} training samples cannot be read and are replaced by the next: "
        training.recorder.write(NoteRecord(text=text + " ".join(said[:5]) + (" ..." if len(said) > 5 else "")))
        state.progress.skipped = len(said)


def _end_epoch(
    state: TrainingState, training: TrainingJob, validation: Dataset[Any], steps: int, stop_if_asked: Callable[[], None]
) -> bool:
    """Evaluate and record the epoch; return whether the network is the best so far."""
    progress, settings = state.progress, training.settings
    epoch = progress.epoch + 1
    metrics: dict[str, float] = {}
    if epoch % settings.evaluate_every == 0 or epoch == settings.epochs:
        metrics, _ = evaluate(state.evaluated, training.task, validation, settings, training.processes, stop_if_asked)
    record = EpochRecord(
        model=training.name,
        epoch=epoch,
        epochs=settings.epochs,
        loss=training.processes.mean(progress.loss) / max(1, progress.step),
        metrics=metrics,
        learning_rate=progress.learning_rate,
        seconds=progress.epoch_seconds,
        macs=state.groups.macs(),
        params=state.groups.params(),
        channels=int(state.groups.exact.sum()),
        pressed=progress.pressed,
    )
    training.recorder.write(record)
    if training.processes.first:
        training.shown(record)
    value = metrics.get(training.task.main_metric)
    best = value is not None and (progress.best is None or value > progress.best)
    progress.best = value if best else progress.best
    progress.seconds += progress.epoch_seconds
    progress.epoch, progress.step, progress.cut = epoch, 0, False
    progress.loss, progress.epoch_seconds = 0.0, 0.0
    return best
