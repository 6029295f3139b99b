"""Nuclear norm of the layers' weights, under which they learn low ranks (Alvarez & Salzmann, NIPS 2017)."""

import dataclasses
from typing import final

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from prunus.graph import ChannelGroups
from prunus.modules.defaults import whatever_device
from prunus.penalties.interface import BoundPenalty, Shrinkage, When, check_step
from prunus.penalties.matrices import MatrixWeight, matrix_weights, replace_
from prunus.penalties.optimizer_rule import OptimizerRule
from prunus.penalties.spectrum import singular_value_threshold


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class NuclearNorm(Shrinkage):
    """r = strength * sum over layers of ||theta_l||_*, the sum of the singular values of the layer's weight.

    A convolution's weight is taken as the matrix K x (C k_h k_w), one row per output channel, or one such matrix per
    group. `factorize` splits a layer that training leaves at low rank into two thinner layers.
    The proximal step of size t, the learning rate, follows the optimizer's step, with theta_l = U Sigma V^T:

        theta_l <- U max(0, Sigma - t * strength) V^T.

    Cai, Candes & Shen 2010; on the layers of a network: Alvarez & Salzmann, NIPS 2017.

    Settings: see `prunus.penalties.Shrinkage`; a unit is a layer. With Adam, whose metric allows no closed form, the
    proximal step is always the plain one.

    Attributes:
        layers: layers to penalise, as globs over their paths; None: all convolutions and linear layers.
    """

    layers: str | tuple[str, ...] | None = None

    @whatever_device
    def bind(self, model: nn.Module, groups: ChannelGroups | None = None) -> "BoundNuclearNorm":
        """Attach the penalty to `model`, as `Penalty.bind` does; the channel groups are not needed."""
        layers, strength = matrix_weights(model, self.layers), self.number
        early = {layer.path for layer in matrix_weights(model)[: self.first_layers]}
        weights = [strength * (self.first_factor if layer.path in early else 1.0) for layer in layers]
        return BoundNuclearNorm(layers, weights, self.when, self.follows)

    def units(self, model: nn.Module, groups: ChannelGroups | None = None) -> Tensor:
        """Return ||theta_l||^2 / ||theta_l||_*, [number of layers]."""
        values = [torch.linalg.svdvals(layer.view(layer.weight)) for layer in matrix_weights(model, self.layers)]
        return torch.tensor([float(each.square().sum() / each.sum()) for each in values])


@final
@dataclasses.dataclass(frozen=True, eq=False)
class BoundNuclearNorm(BoundPenalty):
    """The penalty on one model.

    Attributes:
        layers: the weights.
        weights: lambda of each layer.
        when: when the proximal step is due.
        coupled: SGD's momentum includes the step, so that loss + r is minimised.
    """

    layers: list[MatrixWeight]
    weights: list[float]
    when: When = "step"
    coupled: bool = True

    def value(self) -> Tensor:
        """Return r, differentiable where no singular value is zero."""
        total = torch.zeros(())
        for layer, weight in zip(self.layers, self.weights, strict=True):
            norms: Tensor = torch.linalg.matrix_norm(layer.view(layer.weight), "nuc")
            total = total.to(norms) + weight * norms.sum()
        return total

    @torch.no_grad()
    @whatever_device
    def prox_(self, step_size: float, optimizer: Optimizer | None = None) -> None:
        """Take the proximal step: theta <- U max(0, Sigma - step_size * weight) V^T for each layer.

        Call it after `optimizer.step()`; `step_size` is the learning rate. With SGD as `optimizer`, its momentum
        includes the step and loss + r is minimised. With Adam the step is the Euclidean one: singular values fall by
        `step_size * weight` per step, whatever the size of the gradient.

        Raises:
            TrainingError: weights are not finite.
        """
        parameters = [layer.weight for layer in self.layers]
        step_size = check_step(step_size, optimizer, parameters)
        if step_size == 0:
            return
        rule = OptimizerRule(optimizer if self.coupled else None)
        copies = rule.copies(parameters)
        sizes = [step_size * rule.step(parameter).factor for parameter in parameters]
        thresholds = [size * weight for size, weight in zip(sizes, self.weights, strict=True)]
        replace_(self.layers, thresholds, singular_value_threshold)
        rule.update_momenta_(copies, step_size)
