"""Between two segments: remove what has become zero, carry everything over, choose what is pressed next."""

import copy
import time

import torch
from torch import Tensor, nn

from prunus.budget.controller import Controller, press
from prunus.budget.removal import removal, spare_layers
from prunus.budget.width_stability import MEMORY, is_settled
from prunus.errors import TrainingError
from prunus.graph import trace
from prunus.penalties import GroupLasso
from prunus.penalties.zeros import zero_groups
from prunus.records import EXACT, ShrinkRecord
from prunus.surgery import Plan, apply, bypass, carry_
from prunus.train.distributed import Processes
from prunus.train.job import Training
from prunus.train.latency_target import importance, take_aim
from prunus.train.settings import Train
from prunus.train.training_state import State
from prunus.verify.removal_law import difference


def shrink(state: State, inputs: Tensor, processes: Processes) -> ShrinkRecord | None:
    """Remove the zero groups from the network, its average and its optimizer; None where there are none.

    Process 0 decides what goes; all must hold the same network afterwards.

    Raises:
        TrainingError: the output changed by more than rounding, which would be an error of Prunus; or the processes
            differ (what and where is said).
    """
    began = time.perf_counter()
    before, model = state.groups, state.model
    removed = processes.share(spare_layers(before, zero_groups(model, before)))
    plan = removal(before, removed)
    if not plan:
        return None
    small = apply(plan, model)
    relative = _changed(model, small, inputs, f"removing {int(removed.sum())} zero channel groups")
    precise = _precisely(model, small, inputs)
    _go_on_with(state, plan, small)
    state.groups = before.without(removed)
    state.importance = state.importance[~removed]
    state.pressed = state.pressed[~removed]
    _take_out(state, inputs)
    small = state.model
    processes.require_same(f"after the cut at the end of epoch {state.progress.epoch + 1}", small, state.plan.to_json())
    state.network = processes.wrapped(small)  # which would make them alike, tacitly
    if state.penalty is not None:
        state.penalty = GroupLasso().bind(small, state.groups)
    state.regularize(inputs)
    return ShrinkRecord(
        epoch=state.progress.epoch + 1,
        removed_groups=int(removed.sum()),
        macs_before=before.macs(),
        macs_after=state.groups.macs(),
        params_before=before.params(),
        params_after=state.groups.params(),
        max_rel_diff=relative,
        max_rel_diff_float64=precise,
        seconds=time.perf_counter() - began,
    )


def _go_on_with(state: State, plan: Plan, small: nn.Module) -> None:
    """Let `small`, which `plan` makes of the network, take its place, with all that belongs to it."""
    carry_(plan, state.optimizer, state.model, small)
    if state.ema is not None:
        state.ema.module = apply(plan, state.ema.module)
    state.model, state.plan = small, state.plan + plan


def _take_out(state: State, inputs: Tensor) -> None:
    """Take out the residual blocks of which a layer has been emptied: what was left of it would come back."""
    vanished = bypass(state.model, inputs)
    if not vanished:
        return
    small = apply(vanished, state.model)
    _changed(state.model, small, inputs, next(iter(vanished)).summary())
    _go_on_with(state, vanished, small)
    old, state.groups = state.groups, trace(state.model, inputs)
    importance, pressed = state.importance, state.pressed
    state.importance = importance.new_zeros(len(state.groups))
    state.pressed = pressed.new_zeros(len(state.groups))
    known = {(slot.path, slot.dim): slot.groups for slot in old.slots}
    for slot in state.groups.slots:
        before = known.get((slot.path, slot.dim))
        if before is not None:
            both = (before >= 0) & (slot.groups >= 0)
            state.importance[slot.groups[both]] = importance[before[both]]
            state.pressed[slot.groups[both]] = pressed[before[both]]


def _changed(model: nn.Module, small: nn.Module, inputs: Tensor, what: str) -> float:
    """Return by how much the output changed, relative to its largest.

    Raises:
        TrainingError: by more than rounding.
    """
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # TF32 would round at 1e-3
        _, relative = difference(model, small, (inputs,))
    if relative > EXACT["float32"]:
        raise TrainingError(
            f"{what}: this changed the output by {relative:.2e} relative, above {EXACT['float32']:.0e}: the network "
            "was read wrongly; please report it with the model's code"
        )
    return relative


def _precisely(model: nn.Module, small: nn.Module, inputs: Tensor) -> float | None:
    """Return the relative difference of two networks' outputs in float64; None where they do not run in it."""
    try:
        return difference(copy.deepcopy(model).double(), copy.deepcopy(small).double(), (inputs.double(),))[1]
    except (RuntimeError, TypeError):  # a type written into the network's code, or a device that has no float64
        return None


def choose(state: State, controller: Controller, training: Training) -> None:
    """At the beginning of a segment, choose what is pressed to zero in it; after the last, drop the penalty."""
    _settle(state, controller, training.settings.epochs, training.processes)
    first, every, num = controller.segments(training.settings.epochs, state.progress.settled_at)
    since = state.progress.epoch - first
    if since >= every * num:
        state.penalty = None
        return
    if state.target is None or since < 0 or since % every:
        return
    progress = (since // every + 1) / num
    if progress == 1 and controller.budget.is_timed and state.progress.epoch:  # else it has just been taken
        take_aim(state, controller.budget, training)
    pressed = press(state.groups, importance(state), state.target, progress, controller.budget.multiple_of)
    state.pressed = training.processes.share(pressed)


def _settle(state: State, controller: Controller, epochs: int, processes: Processes) -> None:
    """Note the widths that selection would leave now, and let the pressure begin if they have settled or it is time."""
    progress, shown = state.progress, state.importance.double()
    if controller.settled is None or progress.settled_at is not None or state.target is None:
        return
    earliest, latest = controller.window(epochs)
    settled = False
    if bool(shown.any()):
        removed = press(state.groups, shown, state.target, 1.0, controller.budget.multiple_of)
        progress.widths = [*progress.widths[-MEMORY:], list(state.groups.widths(~removed).values())]
        settled = progress.epoch >= earliest and is_settled(progress.widths, controller.settled)
    if processes.share(settled) or progress.epoch >= latest:
        progress.settled_at = progress.epoch


def segment_steps_left(state: State, controller: Controller, settings: Train, steps: int) -> int:
    """Return the steps left in the running segment, the next one included; 0 outside all segments."""
    first, every, num = controller.segments(settings.epochs, state.progress.settled_at)
    since = state.progress.epoch - first
    if since < 0 or since >= every * num:
        return 0
    return (every - since % every) * steps - state.progress.step
