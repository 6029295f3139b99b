"""Between two segments: remove what has become zero, carry everything over, choose what is pressed next."""

import time

import torch
from torch import Tensor

from prunus.budget.check import difference
from prunus.budget.controller import Controller, press
from prunus.budget.select import relative_norms, removal, spare_layers, zero_groups
from prunus.errors import TrainingError
from prunus.penalties import GroupLasso
from prunus.records import ShrinkRecord
from prunus.surgery import apply, carry_
from prunus.train.settings import Train
from prunus.train.state import State, averaged

TOLERANCE = 1e-5  # relative, float32: what removing zeros may change


def shrink(state: State, inputs: Tensor, settings: Train) -> ShrinkRecord | None:
    """Remove the zero groups from the network, its average and its optimizer; None where there are none.

    Raises:
        TrainingError: the output changed by more than rounding. That would be an error of Prunus.
    """
    began = time.perf_counter()
    before, model = state.groups, state.model
    removed = spare_layers(before, zero_groups(model, before))
    plan = removal(before, removed)
    if not plan:
        return None
    small = apply(plan, model)
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # TF32 would round at 1e-3
        _, relative = difference(model, small, (inputs,))
    if relative > TOLERANCE:
        raise TrainingError(
            f"removing {int(removed.sum())} zero channel groups changed the output by {relative:.2e} relative, above "
            f"{TOLERANCE:.0e}: the groups of this network were read wrongly; please report it with the model's code"
        )
    carry_(plan, state.optimizer, model, small)
    if state.ema is not None:
        average = averaged(small, settings)
        assert average is not None
        average.module.load_state_dict(apply(plan, state.ema.module).state_dict())
        average.n_averaged.copy_(state.ema.n_averaged)
        state.ema = average
    state.model, state.plan = small, state.plan + plan
    state.groups = before.without(removed)
    state.importance = state.importance[~removed]
    state.pressed = torch.zeros(len(state.groups), dtype=torch.bool)
    state.penalty = GroupLasso().bind(small, state.groups)
    return ShrinkRecord(
        epoch=state.progress.epoch + 1,
        removed_groups=int(removed.sum()),
        macs_before=before.macs(),
        macs_after=state.groups.macs(),
        params_before=before.params(),
        params_after=state.groups.params(),
        max_rel_diff=relative,
        seconds=time.perf_counter() - began,
    )


def choose(state: State, controller: Controller, epochs: int) -> None:
    """At the beginning of a segment, choose what is pressed to zero in it; after the last, drop the penalty."""
    first, every, num = controller.segments(epochs)
    since = state.progress.epoch - first
    if since >= every * num:
        state.penalty = None
        return
    if state.target is None or since < 0 or since % every:
        return
    progress = (since // every + 1) / num
    importance = state.importance.double()
    if not bool(importance.any()):  # pressed from the first step: no gradient has been seen yet
        importance = relative_norms(state.model, state.groups)
    state.pressed = press(state.groups, importance, state.target, progress, controller.budget.multiple_of)


def segment_steps_left(state: State, controller: Controller, settings: Train, steps: int) -> int:
    """Return the steps left in the running segment, the next one included; 0 outside all segments."""
    first, every, num = controller.segments(settings.epochs)
    since = state.progress.epoch - first
    if since < 0 or since >= every * num:
        return 0
    return (every - since % every) * steps - state.progress.step
