"""What every penalty is: settings that bind to a network, and what the training loop calls."""

import abc
import dataclasses
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from prunus.errors import RecipeError
from prunus.graph import ChannelGroups

When = Literal["step", "epoch"]


class BoundPenalty(abc.ABC):
    """A penalty on the parameters of one model. After an edit of the model, bind again."""

    when: When  # after which event of the training the proximal step is due

    @abc.abstractmethod
    def value(self) -> Tensor:
        """Return r, a scalar, differentiable; the proximal step does not need it."""

    @abc.abstractmethod
    def prox_(self, step_size: float, optimizer: Optimizer | None = None) -> Tensor | None:
        """Do the proximal step of size `step_size`, the learning rate, in place; call it after the optimizer's."""

    def after_step_(self, step_size: float, optimizer: Optimizer | None = None) -> None:
        """Do the proximal step if it is due after each step of the optimizer."""
        if self.when == "step":
            self.prox_(step_size, optimizer)

    def after_epoch_(self, step_size: float, optimizer: Optimizer | None = None) -> None:
        """Do the proximal step if it is due after each epoch."""
        if self.when == "epoch":
            self.prox_(step_size, optimizer)


class Penalty(abc.ABC):
    """Settings of a penalty; a final subclass is a frozen dataclass."""

    @abc.abstractmethod
    def bind(
        self,
        model: nn.Module,
        groups: ChannelGroups,
        *,
        step_size: float | None = None,
        steps_per_epoch: int | None = None,
    ) -> BoundPenalty:
        """Attach the penalty to `model`, traced as `groups`; the rest is what `strength: auto` needs to know."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shrinkage(Penalty):
    """What the penalties that shrink have in common.

    Attributes:
        strength: lambda of loss + lambda * r. "auto" chooses it when the penalty is bound, so that one epoch of
            proximal steps takes `share` off the norm of a typical unit (the median one), whatever the optimizer.
        when: the proximal step follows each step of the optimizer, or each epoch (Alvarez & Salzmann 2016).
        share: of a typical unit's norm that "auto" takes an epoch; 0.02 to 0.1 are usual.
        first_layers: number of layers, from the input, that are penalised less.
        first_factor: what lambda is multiplied by there; the paper's 0.102 to 0.255 on ImageNet is 0.4 on three.
    """

    strength: float | Literal["auto"] = 1e-4
    when: When = "step"
    share: float = 0.05
    first_layers: int = 0
    first_factor: float = 0.4

    def __post_init__(self) -> None:
        name = type(self).__name__
        if self.strength != "auto" and not self.strength >= 0:
            raise RecipeError(f'{name}.strength is {self.strength}: it must be zero or more, or "auto"')
        if self.when not in ("step", "epoch"):
            raise RecipeError(f'{name}.when is {self.when!r}: it must be "step" or "epoch"')
        if not 0 < self.share < 1:
            raise RecipeError(f"{name}.share is {self.share}: it must lie between 0 and 1")
        if self.first_layers < 0 or not self.first_factor >= 0:
            raise RecipeError(
                f"{name}: first_layers {self.first_layers} and first_factor {self.first_factor} must be zero or more"
            )

    @property
    def coupled(self) -> bool:
        """Whether the proximal step follows the optimizer's own rule, so that loss + r is minimised (`rule.py`)."""
        return self.when == "step" and self.strength != "auto"

    def chosen_strength(self, units: Tensor, step_size: float | None, steps_per_epoch: int | None) -> float:
        """Return lambda; `units` are the values ||theta||^2 / r(theta) of the units at lambda 1, any shape.

        A proximal step of size t shortens theta by t * lambda * r(theta) / ||theta|| to first order, which is the
        share t * lambda * r(theta) / ||theta||^2 of its norm.

        Raises:
            RecipeError: "auto" without the step size, or without the steps an epoch where it must know them.
        """
        if self.strength != "auto":
            return self.strength
        calls = 1 if self.when == "epoch" else steps_per_epoch
        if not step_size or not calls:
            raise RecipeError(
                f'{type(self).__name__}: strength "auto" must know how far an epoch of proximal steps goes: '
                "bind(model, groups, step_size=<the learning rate>, steps_per_epoch=<batches an epoch>)"
            )
        known = units[units.isfinite() & (units > 0)]
        return self.share * float(known.median()) / (step_size * calls) if known.numel() else 0.0


def reduced(groups: ChannelGroups, num_layers: int, factor: float) -> Tensor:
    """Return `factor` for the groups of the first `num_layers` layers, 1 for all others: [num_groups]."""
    early = (groups.layers >= 0) & (groups.layers < num_layers)
    return torch.where(early, factor, 1.0)
