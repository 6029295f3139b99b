"""Sparse group lasso over channel groups (Simon et al. 2013; Alvarez & Salzmann, NIPS 2016)."""

import dataclasses
from typing import final

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from prunus.errors import RecipeError
from prunus.graph import ChannelGroups
from prunus.modules.defaults import whatever_device
from prunus.penalties.group_lasso import BoundGroupLasso, unit_weights
from prunus.penalties.interface import BoundPenalty, Shrinkage, When, check_step, layer_factors
from prunus.penalties.keep import patterns_of
from prunus.penalties.optimizer_rule import OptimizerRule
from prunus.penalties.prox import soft_threshold
from prunus.penalties.slices import GroupSlices


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class SparseGroupLasso(Shrinkage):
    """r = strength * sum over groups g of (1 - alpha) sqrt(P_g) ||theta_g||_2 + alpha ||theta_g||_1.

    Groups as in `GroupLasso`; alpha 0 is the group lasso, 1 the lasso. Only groups whose removal is exact are
    penalised, and only whole groups can be removed: zeros inside a remaining group save nothing on most hardware.
    The proximal step of size t, the learning rate, follows the optimizer's step:

        s <- sign(theta_g) max(0, |theta_g| - t * strength * alpha), elementwise,
        theta_g <- max(0, 1 - t * strength * (1 - alpha) * sqrt(P_g) / ||s||_2) s.

    Simon et al. 2013; on the units of a network: Alvarez & Salzmann, NIPS 2016.

    Settings: see `prunus.penalties.Shrinkage`; a unit is a group.

    Attributes:
        alpha: share of the elementwise part, in [0, 1]; 0.5 in the paper.
        keep: layers whose channels are not penalised, as patterns over their paths: ("stem.*",); see `kept_groups`.
    """

    alpha: float = 0.5
    keep: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.alpha <= 1:
            raise RecipeError(f"SparseGroupLasso.alpha is {self.alpha}: it must lie in [0, 1]")
        object.__setattr__(self, "keep", patterns_of(self.keep))

    @whatever_device
    def bind(self, model: nn.Module, groups: ChannelGroups) -> "BoundSparseGroupLasso":
        """Attach the penalty to `model`, as `Penalty.bind` does."""
        slices = GroupSlices.of(model, groups)
        weights = unit_weights(slices, groups, self.keep)
        strengths = self.number * layer_factors(self, groups).to(weights.device)
        whole = BoundGroupLasso(slices, (1 - self.alpha) * strengths * weights, self.when, self.follows)
        return BoundSparseGroupLasso(whole, torch.where(weights > 0, self.alpha * strengths, 0.0), self.when)

    def units(self, model: nn.Module, groups: ChannelGroups) -> Tensor:
        """Return ||theta_g||^2 / r(theta_g), [num_groups]."""
        slices = GroupSlices.of(model, groups)
        norms, weights = slices.norms(), unit_weights(slices, groups, self.keep)
        value = (1 - self.alpha) * weights * norms + self.alpha * slices.sums(torch.abs)
        return torch.where(weights > 0, norms.square() / value, torch.nan)


@final
@dataclasses.dataclass(frozen=True, eq=False)
class BoundSparseGroupLasso(BoundPenalty):
    """The penalty on one model.

    Attributes:
        whole: the part on whole groups.
        element_weights: strength * alpha, 0 for groups that are not penalised; [num_groups].
        when: when the proximal step is due.
    """

    whole: BoundGroupLasso
    element_weights: Tensor
    when: When = "step"

    @property
    def slices(self) -> GroupSlices:
        """The parameters."""
        return self.whole.slices

    def value(self) -> Tensor:
        """Return r, differentiable."""
        return self.whole.value() + (self.element_weights * self.slices.sums(torch.abs)).sum()

    @torch.no_grad()
    @whatever_device
    def prox_(self, step_size: float, optimizer: Optimizer | None = None) -> Tensor:
        """Take the proximal step: soft threshold, then group shrinkage; together they are the prox of the sum.

        This holds in any diagonal metric, since shrinking a group keeps the signs that the soft threshold leaves.
        Otherwise as `BoundGroupLasso.prox_`. Return the groups' norms before the step.
        """
        parameters = self.slices.parameters
        step_size = check_step(step_size, optimizer, parameters)
        norms = self.slices.norms()
        rule = OptimizerRule(optimizer if self.whole.coupled else None)
        step, metric = rule.common(parameters)
        copies = rule.copies(parameters)
        spreads = self.slices.spread(step_size * step.factor * self.element_weights, 0.0)
        for one, spread in zip(self.slices.slices, spreads, strict=True):
            thresholds = spread.to(one.parameter.dtype)
            if metric is not None:
                thresholds = thresholds / metric(one.parameter)
            one.parameter.copy_(soft_threshold(one.parameter, thresholds))
        rule.update_momenta_(copies, step_size)
        self.whole.prox_(step_size, optimizer)
        return norms
