"""Several penalties at once, by incremental proximal descent (Bertsekas 2011; Alvarez & Salzmann, NIPS 2017)."""

import dataclasses
from typing import Self, final

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from prunus.errors import RecipeError
from prunus.graph import ChannelGroups
from prunus.modules.defaults import whatever_device
from prunus.penalties.interface import BoundPenalty, Penalty, When


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Combined(Penalty):
    """r = the sum of the penalties; its proximal step is theirs, one after the other, in the given order.

    For low rank with group sparsity the paper applies the nuclear norm first, then the groups, so that each step
    leaves weights that are exactly group sparse: `Combined(penalties=(NuclearNorm(...), GroupLasso(...)))`.
    """

    penalties: tuple[Penalty, ...]

    def __post_init__(self) -> None:
        given = self.penalties if isinstance(self.penalties, tuple | list) else None
        if not given or not all(isinstance(penalty, Penalty) for penalty in given):
            raise RecipeError(f"Combined.penalties takes one penalty or more, as a tuple; got {self.penalties!r}")

    @whatever_device
    def bind(self, model: nn.Module, groups: ChannelGroups) -> "BoundCombined":
        """Attach each penalty to `model`, as `Penalty.bind` does."""
        return BoundCombined(tuple(penalty.bind(model, groups) for penalty in self.penalties))

    def calibrated(self, model: nn.Module, groups: ChannelGroups, *, step_size: float, steps_per_epoch: int) -> Self:
        """Return the settings with each penalty calibrated."""
        found = (
            penalty.calibrated(model, groups, step_size=step_size, steps_per_epoch=steps_per_epoch)
            for penalty in self.penalties
        )
        return dataclasses.replace(self, penalties=tuple(found))


@final
@dataclasses.dataclass(frozen=True, eq=False)
class BoundCombined(BoundPenalty):
    """The penalties on one model; each keeps its own `when`."""

    penalties: tuple[BoundPenalty, ...]
    when: When = "step"

    def due(self, event: When) -> bool:
        """Whether any penalty takes a proximal step after this event."""
        return any(penalty.due(event) for penalty in self.penalties)

    def value(self) -> Tensor:
        """Return the sum of the values."""
        return torch.stack([penalty.value() for penalty in self.penalties]).sum()

    @whatever_device
    def prox_(self, step_size: float, optimizer: Optimizer | None = None) -> None:
        """Take the proximal step of each penalty in turn."""
        for penalty in self.penalties:
            penalty.prox_(step_size, optimizer)

    def after_step_(self, step_size: float, optimizer: Optimizer | None = None) -> None:
        """Take the proximal steps that are due after each optimizer step."""
        for penalty in self.penalties:
            penalty.after_step_(step_size, optimizer)

    def after_epoch_(self, step_size: float, optimizer: Optimizer | None = None) -> None:
        """Take the proximal steps that are due after each epoch."""
        for penalty in self.penalties:
            penalty.after_epoch_(step_size, optimizer)
