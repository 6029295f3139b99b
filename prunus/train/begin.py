"""The start of a training: a fresh state or that of the last checkpoint, the same in all processes."""

from pathlib import Path

import torch
from torch import Tensor, nn

from prunus.budget.controller import Controller
from prunus.errors import CheckpointError
from prunus.records import EpochRecord, NoteRecord, ShrinkRecord, lines
from prunus.surgery import Plan, apply
from prunus.train import checkpoint, penalty_binding
from prunus.train.job import TrainingJob
from prunus.train.resume import resume
from prunus.train.state_check import typed_part
from prunus.train.training_state import Progress, TrainingState, start
from prunus.train.tree import packed, unpacked


def begin(
    training: TrainingJob, model: nn.Module, inputs: Tensor, steps: int, controller: Controller | None
) -> TrainingState:
    """Return the state of a training that begins with `model`, or resumes the folder's last checkpoint.

    Args:
        training: the data, task, settings and folder.
        model: the network as built; copied if channels may be removed, else trained in place.
        inputs: example inputs, on the device.
        steps: steps per epoch.
        controller: reaches the budget; None where the network does not shrink.

    Raises:
        BudgetError: the budget cannot be met.
        CheckpointError: no checkpoint is intact, or it is of another network or optimizer.
    """
    processes, penalty = training.processes, training.penalty
    if controller is not None or penalty is not None:
        model = apply(Plan(), model)  # a copy, which will become narrower
    found = _found(training)
    if penalty is not None:  # chosen on the initial network, even when resumed
        model.to(inputs.device)
        rate = training.settings.optimizer.learning_rate
        penalty = penalty_binding.calibrated(penalty, model, inputs, rate, steps)
    if found is not None:
        _refuse_other_length(training, found)
        state = resume(found, model, inputs, training, steps, controller)
        if not state.progress.records:  # a branch of a training that has written on
            _forget(training)
        elif state.progress.epoch < training.settings.epochs:  # else later stages have written on
            training.recorder.truncate(state.progress.records)
        for note in found.notes:
            training.recorder.write(NoteRecord(text=note))
    else:
        _forget(training)
        torch.manual_seed(training.seed + 1_000_003 * processes.index)
        state = start(model, inputs, training, steps, controller)
        if state.shrinker is not None and state.shrinker.pressure.budget.is_timed:
            state.shrinker.pressure.measure()
    state.regularizer = penalty
    state.regularize(inputs)
    processes.require_same("at the start", state.model, state.plan.to_json())
    return state


def _found(training: TrainingJob) -> checkpoint.Checkpoint | None:
    """Return the last checkpoint; only process 0 reads the folder, since others may be on another machine."""
    processes = training.processes
    found = checkpoint.latest(training.checkpoints) if processes.first else None
    if processes.count == 1:
        return found
    sent = processes.share(None if found is None else packed({**vars(found), "path": str(found.path)}))
    if sent is None:
        return None
    content = unpacked(sent)
    return checkpoint.Checkpoint(**{**content, "path": Path(content["path"])})


def _refuse_other_length(training: TrainingJob, found: checkpoint.Checkpoint) -> None:
    """Refuse fewer epochs than the checkpoint has, or more epochs for a training that has ended and that other
    trainings have followed: these would have to be repeated.

    Raises:
        CheckpointError: raised in every process.
    """
    done, asked, text = typed_part(found, Progress, "progress").epoch, training.settings.epochs, ""
    if training.processes.first and training.recorder.count():
        epochs = [record for record in lines(training.recorder.path.parent) if isinstance(record, EpochRecord)]
        own = [record.epochs for record in epochs if record.model == training.name]
        if own and own[-1] == done < asked and epochs[-1].model != training.name:
            text = f"it had ended, and the training of {epochs[-1].model} has begun after it"
    text = f"{done} are done" if done > asked else training.processes.share(text)
    if text:
        raise CheckpointError(
            f"the training of {training.name} cannot have {asked} epochs: {text} ({found.path}); "
            "give as many epochs as it had, or choose another folder with output=..."
        )


def _forget(training: TrainingJob) -> None:
    """Remove the records of an earlier attempt that ended before its first checkpoint."""
    if training.recorder.count():
        records = lines(training.recorder.path.parent)
        own = (i for i, r in enumerate(records) if isinstance(r, EpochRecord) and r.model == training.name)
        first = next(own, len(records))
        while first and isinstance(records[first - 1], ShrinkRecord):  # a cut comes before its epoch's record
            first -= 1
        training.recorder.truncate(first)
