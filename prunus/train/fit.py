"""`fit`: train a network; with a controller, one that shrinks to its budget while it learns."""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from prunus.budget.controller import Controller, Target, thresholds
from prunus.errors import TrainingError
from prunus.penalties import taylor
from prunus.records import EpochRecord, NoteRecord, Recorder, read
from prunus.surgery import Plan
from prunus.train import checkpoint
from prunus.train.batches import TrainingSplit, steps_per_epoch, training_batches
from prunus.train.evaluate import Task, autocast, evaluate
from prunus.train.interrupt import Interrupt, InterruptedTrainingError, interruptible
from prunus.train.settings import Train
from prunus.train.shrink import choose, segment_steps_left, shrink
from prunus.train.state import State, resume, save, start

IMPORTANCE_MEMORY = 0.98  # of the running mean over batches: about the last fifty


class Splits(Protocol):
    """Data to train and validate on."""

    def train(self) -> TrainingSplit:
        """Return the training split."""
        ...

    def validation(self) -> Dataset[Any]:
        """Return the validation split."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """What a training is of, and where it leaves its traces."""

    name: str  # "wide", "narrow": names it in the records
    data: Splits
    task: Task
    settings: Train
    seed: int
    folder: Path  # of the run; checkpoints go to folder/checkpoints/name
    recorder: Recorder
    shown: Callable[[EpochRecord], None] = lambda record: None  # called with each epoch's record
    ticked: Callable[[str, int, int, float], None] = lambda name, step, steps, loss: None  # after each step


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fitted:
    """A trained network: `plan` leads from the network as built to `model`."""

    model: nn.Module
    plan: Plan
    seconds: float
    records: int  # that the run had when the training ended


def fit(training: Training, model: nn.Module, inputs: Tensor, controller: Controller | None = None) -> Fitted:
    """Train `model`, the network as built, and return what it has become.

    Training goes on from the folder's last checkpoint, in the middle of an epoch too. Ctrl-C and SIGTERM write one
    first.

    Args:
        training: the data, the task, the regime, the folder.
        model: is trained in place until it first shrinks.
        inputs: an example [N, C, H, W], for the trace and the exactness checks.
        controller: shrinks the network to its budget; None trains it plainly.

    Raises:
        BudgetError: the budget cannot be met; before anything is trained.
        TrainingError: the loss is not a number (the step is named), or the training was interrupted.
    """
    settings, folder = training.settings, training.folder / "checkpoints" / training.name
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    split, validation = training.data.train(), training.data.validation()
    steps = steps_per_epoch(len(split), settings.batch_size)
    inputs = inputs.to(settings.torch_device())
    state = _begin(training, folder, model, inputs, steps, controller)
    with interruptible() as interrupt:
        while state.progress.epoch < settings.epochs:
            began = time.perf_counter()
            if controller is not None and state.progress.step == 0:
                choose(state, controller, settings.epochs)
            _train_epoch(state, training, split, steps, controller, interrupt)
            pressed = int(state.pressed.sum())
            record = _end_segment(state, training, inputs, controller, steps)
            _end_epoch(state, training, validation, time.perf_counter() - began, pressed)
            if record is not None:
                training.recorder.write(record)
            _save(state, training, folder, last=state.progress.epoch == settings.epochs)
        if interrupt.number is not None:  # asked during the last evaluation
            raise InterruptedTrainingError(
                interrupt.number, f"stopped after the training ({training.name}): the same command goes on from there"
            )
    return Fitted(
        model=state.evaluated, plan=state.plan, seconds=state.progress.seconds, records=state.progress.records
    )


def _begin(
    training: Training, folder: Path, model: nn.Module, inputs: Tensor, steps: int, controller: Controller | None
) -> State:
    found = checkpoint.latest(folder)
    if found is not None:
        state = resume(found, model, inputs, training.settings, steps)
        if state.progress.epoch < training.settings.epochs:  # else later stages have written on
            training.recorder.truncate(state.progress.records)
        for note in found.notes:
            training.recorder.write(NoteRecord(text=note))
        return state
    _forget(training)
    torch.manual_seed(training.seed)
    state = start(model, inputs, training.settings, steps, Plan())
    if controller is not None:
        state.aim(Target.of(state.groups, controller.budget))
    state.progress.records = training.recorder.count()
    return state


def _forget(training: Training) -> None:
    """Drop the records of a former attempt at this training that ended before its first checkpoint."""
    if training.recorder.count():
        records = read(training.recorder.path.parent)
        own = (i for i, r in enumerate(records) if isinstance(r, EpochRecord) and r.model == training.name)
        training.recorder.truncate(next(own, len(records)))


def _train_epoch(
    state: State,
    training: Training,
    split: TrainingSplit,
    steps: int,
    controller: Controller | None,
    interrupt: Interrupt,
) -> None:
    progress, began = state.progress, time.perf_counter()
    state.model.train()
    loader = training_batches(split, training.settings, training.seed, progress.epoch, progress.step)
    for inputs, target in loader:
        left = 0 if controller is None else segment_steps_left(state, controller, training.settings, steps)
        loss = _step(state, training, inputs, target, left)
        progress.step += 1
        progress.loss += loss
        training.ticked(training.name, progress.epoch * steps + progress.step, training.settings.epochs * steps, loss)
        if interrupt.number is not None:
            progress.seconds += time.perf_counter() - began
            save(state, training.folder / "checkpoints" / training.name)
            raise InterruptedTrainingError(
                interrupt.number,
                f"stopped in epoch {progress.epoch + 1}, after step {progress.step} of {steps}; the checkpoint is "
                f"written: the same command goes on from there",
            )


def _step(state: State, training: Training, inputs: Tensor, target: Tensor, steps_left: int) -> float:
    device = training.settings.torch_device()
    with autocast(training.settings):
        output = state.model(inputs.to(device))
    loss = training.task.loss(output, target.to(device))
    value = loss.item()
    if value != value or value in (float("inf"), float("-inf")):
        progress = state.progress
        raise TrainingError(
            f"the loss is {value} in epoch {progress.epoch + 1}, step {progress.step + 1} ({training.name}): training "
            f"stops; the checkpoints in {training.folder / 'checkpoints' / training.name}, of the {progress.epoch} "
            "epochs before, are kept. A lower learning rate "
            f"(now {state.scheduler.get_last_lr()[0]:.1e}), warmup_epochs or precision: float32 are the usual cures"
        )
    state.optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    if state.penalty is not None:
        _observe(state)
    state.optimizer.step()
    state.scheduler.step()
    if state.penalty is not None and steps_left and bool(state.pressed.any()):
        norms = state.penalty.slices.norms()
        state.penalty.shrink_(thresholds(norms, state.pressed, steps_left), norms)
    if state.ema is not None:
        state.ema.update_parameters(state.model)
    return float(value)


def _observe(state: State) -> None:
    """Add the batch's Taylor importance to its running mean."""
    assert state.penalty is not None
    seen = taylor(state.penalty.slices).cpu()
    fresh = not bool(state.importance.any())
    state.importance = seen if fresh else torch.lerp(seen, state.importance, IMPORTANCE_MEMORY)


def _end_segment(state: State, training: Training, inputs: Tensor, controller: Controller | None, steps: int) -> Any:
    """Shrink where a segment ends with the epoch."""
    if controller is None or not bool(state.pressed.any()):
        return None
    if segment_steps_left(state, controller, training.settings, steps) > 0:
        return None
    return shrink(state, inputs, training.settings)


def _end_epoch(state: State, training: Training, validation: Dataset[Any], seconds: float, pressed: int) -> None:
    progress, settings = state.progress, training.settings
    epoch = progress.epoch + 1
    progress.seconds += seconds
    metrics: dict[str, float] = {}
    if epoch % settings.evaluate_every == 0 or epoch == settings.epochs:
        metrics, _ = evaluate(state.evaluated, training.task, validation, settings)
    record = EpochRecord(
        model=training.name,
        epoch=epoch,
        epochs=settings.epochs,
        loss=progress.loss / max(1, progress.step),
        metrics=metrics,
        learning_rate=float(state.optimizer.param_groups[0]["lr"]),
        seconds=seconds,
        macs=state.groups.macs(),
        params=state.groups.params(),
        channels=int(state.groups.exact.sum()),
        pressed=pressed,
    )
    training.recorder.write(record)
    training.shown(record)
    progress.epoch, progress.step, progress.loss = epoch, 0, 0.0


def _save(state: State, training: Training, folder: Path, *, last: bool) -> None:
    state.progress.records = training.recorder.count()
    if last or state.progress.epoch % training.settings.checkpoint_every == 0:
        save(state, folder)
