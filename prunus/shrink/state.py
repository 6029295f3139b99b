"""The state of a Shrinker: tensors and JSON, which torch.load(weights_only=True) and safetensors read."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from prunus.budget.controller import Goal
from prunus.budget.schedule import Clock
from prunus.decoding import from_json
from prunus.errors import CheckpointError, EditError
from prunus.graph import ChannelGroups
from prunus.records.typed import typed
from prunus.surgery import Plan

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


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShrinkerState:
    """Everything that changes while a Shrinker works; the weights are in the network's and the optimizer's own states.

    Attributes:
        importance: [num_groups].
        pressed: groups under pressure, bool [num_groups].
        plan: all cuts so far.
        progress: the rest.
    """

    importance: Tensor
    pressed: Tensor
    plan: Plan
    progress: Progress

    def to_dict(self) -> dict[str, Any]:
        """Return a copy as tensors and JSON."""
        return {
            "importance": self.importance.detach().clone(),
            "pressed": self.pressed.clone(),
            "plan": self.plan.to_json(),
            "progress": json.dumps(dataclasses.asdict(self.progress)),
        }

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any], *, periods: int | None) -> "ShrinkerState":
        """Return the state that `to_dict` wrote, for a training of `periods` (None: of unknown length).

        Raises:
            CheckpointError: `saved` is not the state of a Shrinker, or has done more than `periods`.
        """
        kinds = {"importance": Tensor, "pressed": Tensor, "plan": str, "progress": str}
        for name, kind in kinds.items():
            if not isinstance(saved, Mapping) or not isinstance(saved.get(name), kind):
                raise CheckpointError(f"the state of a Shrinker holds {name!r}, a {kind.__name__}, and this does not")
        try:
            content = from_json(saved["progress"])
            if not isinstance(content, dict) or content.get("format") != FORMAT:
                raise CheckpointError(f"the state of a Shrinker has format {FORMAT}: this is {saved['progress']!r:.80}")
            progress, plan = typed(Progress, content, "progress"), Plan.from_json(saved["plan"])
        except (ValueError, EditError) as error:
            raise CheckpointError(f"the state of a Shrinker cannot be read: {error}") from error
        if periods is not None and progress.clock.period > periods:
            raise CheckpointError(
                f"the training has {periods} periods (epochs, or stretches of steps), and the state to resume from has "
                f"done {progress.clock.period}: give at least as many steps or epochs as it had"
            )
        return cls(importance=saved["importance"], pressed=saved["pressed"], plan=plan, progress=progress)

    def check_groups(self, groups: ChannelGroups) -> None:
        """Refuse the groups of another network.

        Raises:
            CheckpointError: importance and pressed are not of these groups.
        """
        if self.importance.shape != (len(groups),) or self.pressed.shape != (len(groups),):
            raise CheckpointError(
                f"importance and pressed have shapes {list(self.importance.shape)} and {list(self.pressed.shape)}, and "
                f"the network {len(groups)} channel groups: the state is of another network"
            )
