"""Group lasso over channel groups (Yuan & Lin 2006; Alvarez & Salzmann, NIPS 2016)."""

import dataclasses
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from prunus.graph import ChannelGroups
from prunus.modules.defaults import whatever_device
from prunus.penalties.interface import BoundPenalty, Shrinkage, When, check_step, layer_factors
from prunus.penalties.keep import kept_groups, patterns_of
from prunus.penalties.metric_prox import metric_shrink_
from prunus.penalties.optimizer_rule import OptimizerRule, momenta
from prunus.penalties.prox import group_shrinkage
from prunus.penalties.slices import GroupSlices


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class GroupLasso(Shrinkage):
    """r = strength * sum over groups g of sqrt(P_g) ||theta_g||_2.

    theta_g holds all parameters that produce the channels of g (filters, biases, BatchNorm's gamma and beta, of every
    layer that a residual sum ties together); P_g is their number. Only groups whose removal is exact are penalised.
    The proximal step of size t, the learning rate, follows the optimizer's step:

        theta_g <- max(0, 1 - t * strength * sqrt(P_g) / ||theta_g||_2) theta_g.

    Yuan & Lin 2006; on the units of a network: Alvarez & Salzmann, NIPS 2016.

    Settings: see `prunus.penalties.Shrinkage`; a unit is a group.

    Attributes:
        keep: layers whose channels are not penalised, as patterns over their paths: ("stem.*",); see `kept_groups`.
    """

    keep: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "keep", patterns_of(self.keep))

    @whatever_device
    def bind(self, model: nn.Module, groups: ChannelGroups) -> "BoundGroupLasso":
        """Attach the penalty to `model`, as `Penalty.bind` does."""
        slices = GroupSlices.of(model, groups)
        weights = self.number * unit_weights(slices, groups, self.keep)
        return BoundGroupLasso(
            slices, weights * layer_factors(self, groups).to(weights.device), self.when, self.follows
        )

    def units(self, model: nn.Module, groups: ChannelGroups) -> Tensor:
        """Return ||theta_g|| / sqrt(P_g), [num_groups]."""
        slices = GroupSlices.of(model, groups)
        return slices.norms() / unit_weights(slices, groups, self.keep)


def unit_weights(slices: GroupSlices, groups: ChannelGroups, keep: Sequence[str] = ()) -> Tensor:
    """Return sqrt(P_g) for exactly removable groups that no layer in `keep` produces, 0 for others: [num_groups]."""
    sizes, penalised = slices.sizes(), groups.exact & ~kept_groups(groups, keep)
    return torch.where(penalised.to(sizes.device), sizes.sqrt(), 0.0)


@final
@dataclasses.dataclass(frozen=True, eq=False)
class BoundGroupLasso(BoundPenalty):
    """The penalty on one model: value and proximal step.

    Attributes:
        slices: the parameters.
        weights: strength * sqrt(P_g), 0 for groups that are not penalised; [num_groups].
        when: when the proximal step is due.
        coupled: the proximal step follows the optimizer's own rule, so that loss + r is minimised.
        resting: groups that the last proximal step left at zero, bool [num_groups]; state.
    """

    slices: GroupSlices
    weights: Tensor
    when: When = "step"
    coupled: bool = True
    resting: Tensor = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "resting", torch.zeros_like(self.weights, dtype=torch.bool))

    def value(self) -> Tensor:
        """Return r, differentiable; the proximal step does not need it."""
        return (self.weights * self.slices.norms()).sum()

    @torch.no_grad()
    @whatever_device
    def prox_(self, step_size: float, optimizer: Optimizer | None = None) -> Tensor:
        """Take the proximal step: theta_g <- max(0, 1 - step_size * weight_g / ||theta_g||) theta_g.

        Call it after `optimizer.step()`; `step_size` is the learning rate. With `optimizer`, the step follows the
        optimizer's rule (`optimizer_rule.py`) where the penalty is coupled, and the momentum of groups that become zero
        is set to zero, so that they stay zero. Return the groups' norms before the step.
        """
        parameters = self.slices.parameters
        step_size = check_step(step_size, optimizer, parameters)
        norms = self.slices.norms()
        rule = OptimizerRule(optimizer if self.coupled else None)
        step, metric = rule.common(parameters)
        thresholds = step_size * step.factor * self.weights
        if metric is not None:
            copies = rule.copies(parameters)
            zero = metric_shrink_(self.slices, thresholds, metric)
            rule.update_momenta_(copies, step_size)
        else:
            factors = torch.where(thresholds > 0, group_shrinkage(norms, thresholds), torch.ones_like(norms))
            if rule.has_momentum and step_size > 0:  # add the step's change before scaling
                self.slices.add_share_((1 - factors) / (step_size * step.momentum_factor), rule.buffer)
            self.slices.scale_(factors)
            zero = (factors == 0) & (thresholds > 0)
        if optimizer is not None:
            # For Adam: while a group rests at zero, its first moment must approach the mean gradient again, or a group
            # that the loss needs would never return. Other optimizers need nothing.
            fresh = zero & ~self.resting if self.coupled else zero
            for momentum in momenta(optimizer):
                self.slices.scale_((~fresh).to(norms.dtype), momentum)
        self.slices.scale_buffers_((~zero).to(norms.dtype))
        self.resting.copy_(zero)
        return norms

    @torch.no_grad()
    def shrink_(self, thresholds: Tensor, norms: Tensor | None = None) -> Tensor:
        """Subtract `thresholds`, [num_groups], from the groups' norms; return the norms before, or `norms` if given."""
        norms = self.slices.norms() if norms is None else norms
        factors = torch.where(thresholds > 0, group_shrinkage(norms, thresholds), torch.ones_like(norms))
        self.slices.scale_(factors)
        self.slices.scale_buffers_((factors != 0).to(factors.dtype))  # a running mean decays, but never to zero
        return norms
