"""The state of a Shrinker: tensors and JSON, which torch.load(weights_only=True) and safetensors read."""

import dataclasses
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from prunus.budget.controller import Goal
from prunus.budget.schedule import Clock
from prunus.decoding import from_json
from prunus.errors import CheckpointError, EditError, TraceError, TrainingError
from prunus.graph import ChannelGroups
from prunus.records.typed import typed
from prunus.shrink.checks import check_state
from prunus.surgery import Plan

if TYPE_CHECKING:
    from prunus.shrink.shrinker import Shrinker

FORMAT = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Progress:
    """The changing state besides tensors and the plan; plain data.

    Attributes:
        format: version of the state's format.
        periods: periods of the training, for a check.
        clock: the position in the training.
        target: the goal (the name is kept for older files).
        observed: see `Pressure`.
        measured: see `Pressure`.
        stepped: the optimizer has stepped, and the Shrinker's `step()` for it is still due.
    """

    format: int
    periods: int | None
    clock: Clock
    target: Goal
    observed: bool
    measured: bool
    stepped: bool = False


def saved(shrinker: "Shrinker", *, stepped: bool) -> dict[str, Any]:
    """Return the state: "importance" and "pressed", [num_groups]; "plan" and "progress", JSON."""
    pressure = shrinker.pressure
    progress = Progress(
        format=FORMAT,
        periods=shrinker.schedule.periods,
        clock=shrinker.clock,
        target=pressure.goal,
        observed=pressure.observed,
        measured=pressure.measured,
        stepped=stepped,
    )
    return {
        "importance": pressure.importance.detach().clone(),
        "pressed": pressure.pressed.clone(),
        "plan": shrinker.plan.to_json(),
        "progress": json.dumps(dataclasses.asdict(progress)),
    }


def load_(shrinker: "Shrinker", state: Mapping[str, Any]) -> bool:
    """Set `shrinker` to `state` and make its network as narrow. Return whether the Shrinker's `step()` is still due.

    Raises:
        CheckpointError: `state` is not the state of a Shrinker, or of another network or training.
    """
    progress, plan = _read(state)
    periods = shrinker.schedule.periods
    if periods is not None and progress.clock.period > periods:
        raise CheckpointError(
            f"the training has {periods} periods (epochs, or stretches of steps), and the state to resume from has "
            f"done {progress.clock.period}: give at least as many steps or epochs as it had"
        )
    _refuse_loaded_optimizer(shrinker)
    restore_(shrinker, plan, state["importance"], state["pressed"], progress)
    return progress.stepped


def _refuse_loaded_optimizer(shrinker: "Shrinker") -> None:
    network = shrinker.network
    try:
        check_state(network.model, network.optimizer)
    except TrainingError as error:
        raise CheckpointError(
            "the optimizer holds state of other shapes than the network's: its load_state_dict was called before the "
            "Shrinker's, which makes both narrow. Create network, optimizer and Shrinker again, and load the "
            f"Shrinker's state first ({error})"
        ) from error


def restore_(shrinker: "Shrinker", plan: Plan, importance: Tensor, pressed: Tensor, progress: Progress) -> None:
    """Set `shrinker` to a state that has been read, and make its network as narrow as `plan` makes it.

    Raises:
        CheckpointError: the state is of another network.
    """

    def check(groups: ChannelGroups) -> None:
        if importance.shape != (len(groups),) or pressed.shape != (len(groups),):
            raise CheckpointError(
                f"importance and pressed have shapes {list(importance.shape)} and {list(pressed.shape)}, and the "
                f"network {len(groups)} channel groups: the state is of another network"
            )

    try:
        shrinker.network.replay(plan, check)
    except (EditError, TraceError) as error:
        raise CheckpointError(f"the state is of another network: {error}") from error
    pressure = shrinker.pressure
    pressure.importance, pressure.pressed = importance.detach().clone(), pressed.bool().clone()
    pressure.goal, pressure.observed, pressure.measured = progress.target, progress.observed, progress.measured
    pressure.budget = pressure.budgets[min(shrinker.schedule.passed(progress.clock), len(pressure.budgets) - 1)]
    pressure.unbind()
    shrinker.clock = progress.clock


def _read(state: Mapping[str, Any]) -> tuple[Progress, Plan]:
    kinds = {"importance": Tensor, "pressed": Tensor, "plan": str, "progress": str}
    for name, kind in kinds.items():
        if not isinstance(state, Mapping) or not isinstance(state.get(name), kind):
            raise CheckpointError(f"the state of a Shrinker holds {name!r}, a {kind.__name__}, and this does not")
    try:
        content = from_json(state["progress"])
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise CheckpointError(f"the state of a Shrinker has format {FORMAT}: this is {state['progress']!r:.80}")
        return typed(Progress, content, "progress"), Plan.from_json(state["plan"])
    except (ValueError, EditError) as error:
        raise CheckpointError(f"the state of a Shrinker cannot be read: {error}") from error
