"""Shrinking between two segments: remove zero groups, carry all state over, choose the groups to press next."""

import time
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from prunus.budget.controller import Controller, press
from prunus.budget.width_stability import MEMORY, is_stable
from prunus.errors import TrainingError
from prunus.graph import trace
from prunus.penalties import GroupLasso
from prunus.penalties.keep import kept_groups
from prunus.penalties.zeros import zero_groups
from prunus.records import ShrinkRecord
from prunus.surgery import Plan, apply, bypass, carry_
from prunus.surgery.removal import removal, spare_layers
from prunus.train.distributed import Processes
from prunus.train.job import TrainingJob
from prunus.train.latency_target import group_importance, set_latency_target
from prunus.train.settings import Train
from prunus.train.training_state import TrainingState
from prunus.verify import Change, change_of_outputs


def shrink(state: TrainingState, inputs: Tensor, processes: Processes, keep: Sequence[str] = ()) -> ShrinkRecord | None:
    """Remove the zero groups from the network, its average and its optimizer; None where there are none.

    Those of the layers `keep` stay (`kept_groups`). Process 0 decides what goes; all must hold the same network
    afterwards.

    Raises:
        TrainingError: the output changed by more than rounding, which would be an error of Prunus; or the processes
            hold different networks (names the tensors).
    """
    began = time.perf_counter()
    before, model = state.groups, state.model
    zeros = zero_groups(model, before) & ~kept_groups(before, keep)
    removed = processes.share(spare_layers(before, zeros))
    plan = removal(before, removed)
    if not plan:
        return None
    small = apply(plan, model)
    found = _require_unchanged(model, small, inputs, f"removing {int(removed.sum())} zero channel groups")
    _replace_model(state, plan, small)
    state.groups = before.without(removed)
    state.importance = state.importance[~removed]
    state.pressed = state.pressed[~removed]
    _remove_constant_blocks(state, inputs)
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
        max_rel_diff=found.relative,
        max_rel_diff_float64=found.relative_float64,
        tolerance=found.tolerance,
        seconds=time.perf_counter() - began,
    )


def _replace_model(state: TrainingState, plan: Plan, small: nn.Module) -> None:
    """Replace the model by `small`, which `plan` makes of it, and carry over its optimizer and average."""
    carry_(plan, state.optimizer, state.model, small)
    if state.ema is not None:
        state.ema.module = apply(plan, state.ema.module)
    state.model, state.plan = small, state.plan + plan


def _remove_constant_blocks(state: TrainingState, inputs: Tensor) -> None:
    """Remove the residual blocks whose branch has become constant: training would revive the rest of the branch."""
    vanished = bypass(state.model, inputs)
    if not vanished:
        return
    small = apply(vanished, state.model)
    _require_unchanged(state.model, small, inputs, next(iter(vanished)).summary())
    _replace_model(state, vanished, small)
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


def _require_unchanged(model: nn.Module, small: nn.Module, inputs: Tensor, what: str) -> Change:
    """Return the change of the output.

    Raises:
        TrainingError: it is more than rounding.
    """
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # TF32 rounds at 1e-3
        found = change_of_outputs(model, small, (inputs,))
    if not found.is_rounding:
        raise TrainingError(
            f"{what}: this changed the output by {found}: the network was read wrongly; please report it with the "
            "model's code"
        )
    return found


def choose_pressed(state: TrainingState, controller: Controller, training: TrainingJob) -> None:
    """At the start of a segment, choose the groups to press to zero in it; after the last one, drop the penalty."""
    _begin_pressure_when_stable(state, controller, training.settings.epochs, training.processes)
    first, every, num = controller.segments(training.settings.epochs, state.progress.settled_at)
    since = state.progress.epoch - first
    if since >= every * num:
        state.penalty = None
        return
    if state.target is None or since < 0 or since % every:
        return
    progress = (since // every + 1) / num
    if progress == 1 and controller.budget.is_timed and state.progress.epoch:  # else it has just been set
        set_latency_target(state, controller.budget, training)
    pressed = press(state.groups, group_importance(state), state.target, progress, controller.budget.multiple_of)
    state.pressed = training.processes.share(pressed)


def _begin_pressure_when_stable(
    state: TrainingState, controller: Controller, epochs: int, processes: Processes
) -> None:
    """Note the widths that selection would leave now; start the pressure if they are stable, or at the latest epoch."""
    progress, shown = state.progress, state.importance.double()
    if controller.settled is None or progress.settled_at is not None or state.target is None:
        return
    earliest, latest = controller.window(epochs)
    stable = False
    if bool(shown.any()):
        removed = press(state.groups, shown, state.target, 1.0, controller.budget.multiple_of)
        progress.widths = [*progress.widths[-MEMORY:], list(state.groups.widths(~removed).values())]
        stable = progress.epoch >= earliest and is_stable(progress.widths, controller.settled)
    if processes.share(stable) or progress.epoch >= latest:
        progress.settled_at = progress.epoch


def segment_steps_left(state: TrainingState, controller: Controller, settings: Train, steps: int) -> int:
    """Return the steps left in the running segment, the next one included; 0 outside all segments."""
    first, every, num = controller.segments(settings.epochs, state.progress.settled_at)
    since = state.progress.epoch - first
    if since < 0 or since >= every * num:
        return 0
    return (every - since % every) * steps - state.progress.step
