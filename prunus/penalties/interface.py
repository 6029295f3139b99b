"""The interface of penalties: settings, their binding to a network, and the calls of the training loop."""

import abc
import dataclasses
import math
import numbers
from collections.abc import Sequence
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from prunus.errors import RecipeError, TrainingError
from prunus.graph import ChannelGroups
from prunus.penalties.optimizer_rule import parameter_groups

When = Literal["step", "epoch"]


class BoundPenalty(abc.ABC):
    """A penalty bound to the parameters of one model. After an edit of the model, bind again."""

    when: When  # the proximal step is due after this event

    @abc.abstractmethod
    def value(self) -> Tensor:
        """Return r, a scalar, differentiable; the proximal step does not need it."""

    @abc.abstractmethod
    def prox_(self, step_size: float, optimizer: Optimizer | None = None) -> Tensor | None:
        """Take the proximal step of size `step_size`, the learning rate, in place, after the optimizer's step.

        Raises:
            TrainingError: `step_size` is invalid, or the optimizer is another network's (`carry_` was forgotten).
        """

    def due(self, event: When) -> bool:
        """Whether a proximal step follows this event."""
        return self.when == event

    def after_step_(self, step_size: float, optimizer: Optimizer | None = None) -> None:
        """Take the proximal step if it is due after each optimizer step."""
        if self.due("step"):
            self.prox_(step_size, optimizer)

    def after_epoch_(self, step_size: float, optimizer: Optimizer | None = None) -> None:
        """Take the proximal step if it is due after each epoch."""
        if self.due("epoch"):
            self.prox_(step_size, optimizer)


class Penalty(abc.ABC):
    """Settings of a penalty; a final subclass is a frozen dataclass."""

    @abc.abstractmethod
    def bind(self, model: nn.Module, groups: ChannelGroups) -> BoundPenalty:
        """Attach the penalty to the parameters of `model`, traced as `groups`. After an edit, bind again.

        Raises:
            EditError: the groups were traced on another model, or before an edit.
            RecipeError: a strength "auto" was not calibrated, or a pattern matches no layer.
        """

    def calibrated(self, model: nn.Module, groups: ChannelGroups, *, step_size: float, steps_per_epoch: int) -> Self:
        """Return the penalty with a strength "auto" replaced by one chosen for `model`; else the penalty unchanged.

        Args:
            model: the network that training begins with, traced as `groups`.
            groups: its channel groups.
            step_size: the learning rate.
            steps_per_epoch: batches per epoch.
        """
        return self


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shrinkage(Penalty):
    """Settings shared by the penalties that shrink units (groups or layers).

    Attributes:
        strength: lambda of loss + lambda * r. With "auto", `calibrated` chooses it so that one epoch of proximal steps
            subtracts `share` of the norm of the median unit, with any optimizer.
        when: take the proximal step after each optimizer step, or after each epoch (Alvarez & Salzmann 2016).
        share: the share of the median unit's norm that "auto" subtracts per epoch; 0.02 to 0.1 are usual.
        first_layers: number of layers, from the input, that are penalised less.
        first_factor: lambda's factor for these layers; the paper's 0.102 to 0.255 on ImageNet is 0.4 on three.
        coupled: whether a proximal step after each optimizer step follows the optimizer's own rule, so that loss + r is
            minimised (`optimizer_rule.py`); else, as per epoch and at a calibrated strength, it is plain.
    """

    strength: float | Literal["auto"] = 1e-4
    when: When = "step"
    share: float = 0.05
    first_layers: int = 0
    first_factor: float = 0.4
    coupled: bool = True

    def __post_init__(self) -> None:
        name = type(self).__name__
        number = isinstance(self.strength, int | float)
        if self.strength != "auto" and not (number and 0 <= self.strength < math.inf):
            raise RecipeError(f'{name}.strength is {self.strength!r}: it must be zero or more and finite, or "auto"')
        check_when(self)
        if not 0 < self.share < 1:
            raise RecipeError(f"{name}.share is {self.share}: it must lie between 0 and 1")
        if self.first_layers < 0 or not 0 <= self.first_factor < math.inf:
            raise RecipeError(
                f"{name}: first_layers {self.first_layers} and first_factor {self.first_factor} must be zero or more, "
                "and finite"
            )

    @abc.abstractmethod
    def units(self, model: nn.Module, groups: ChannelGroups) -> Tensor:
        """Return ||theta||^2 / r(theta) of each unit for lambda = 1, any shape; not finite for units not penalised.

        To first order, a proximal step of size t shortens theta by t * lambda * r(theta) / ||theta||, which is the
        share t * lambda * r(theta) / ||theta||^2 of its norm.
        """

    @torch.no_grad()
    def calibrated(self, model: nn.Module, groups: ChannelGroups, *, step_size: float, steps_per_epoch: int) -> Self:
        """Return the penalty with "auto" replaced by the strength that subtracts `share` of the median unit's norm."""
        if self.strength != "auto":
            return self
        units = self.units(model, groups)
        known = units[units.isfinite() & (units > 0)]
        way = step_size * (steps_per_epoch if self.when == "step" else 1)
        strength = self.share * float(known.median()) / way if known.numel() else 0.0
        return dataclasses.replace(self, strength=strength, coupled=False)

    @property
    def number(self) -> float:
        """The strength lambda.

        Raises:
            RecipeError: the strength is "auto" and was not calibrated.
        """
        if self.strength == "auto":
            raise RecipeError(
                f'{type(self).__name__}: strength "auto" needs the total size of the proximal steps in an epoch: bind '
                "penalty.calibrated(model, groups, step_size=<the learning rate>, steps_per_epoch=<batches per epoch>)"
            )
        return self.strength

    @property
    def follows(self) -> bool:
        """Whether the proximal step follows the optimizer's own rule."""
        return self.coupled and self.when == "step"


def check_when(penalty: Any) -> None:
    """Raise unless `penalty.when` is a `When`.

    Raises:
        RecipeError: names the penalty and the value.
    """
    if penalty.when not in ("step", "epoch"):
        raise RecipeError(f'{type(penalty).__name__}.when is {penalty.when!r}: it must be "step" or "epoch"')


def check_step(step_size: float, optimizer: Optimizer | None, parameters: Sequence[Tensor]) -> float:
    """Return the size of a proximal step as a float; refuse a step that would silently do nothing.

    Raises:
        TrainingError: the size is negative or not a number, or the optimizer holds none of `parameters`.
    """
    number = isinstance(step_size, numbers.Real) or (isinstance(step_size, Tensor) and step_size.numel() == 1)
    if not number or not 0 <= step_size < math.inf:
        raise TrainingError(f"a proximal step's size is the learning rate, zero or more, not {step_size!r}")
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    held = parameter_groups(optimizer) if optimizer is not None else {}
    if optimizer is not None and trained and not any(id(parameter) in held for parameter in trained):
        raise TrainingError(
            f"the {type(optimizer).__name__} holds none of the {len(trained)} parameters that the penalty is bound to: "
            "it trains another network. After an edit call carry_(plan, optimizer, model, small) and bind the penalty "
            "to the small network"
        )
    return float(step_size)


def layer_factors(penalty: Shrinkage, groups: ChannelGroups) -> Tensor:
    """Return the factor of lambda for each group: the penalty's `first_factor` in the first layers, else 1."""
    early = (groups.layers >= 0) & (groups.layers < penalty.first_layers)
    return torch.where(early, penalty.first_factor, 1.0)
