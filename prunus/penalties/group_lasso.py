"""Group lasso over channel groups (Yuan & Lin 2006; Alvarez & Salzmann, NIPS 2016)."""

import dataclasses

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from prunus.errors import RecipeError
from prunus.graph import ChannelGroups
from prunus.penalties.prox import group_shrinkage
from prunus.penalties.slices import GroupSlices


@dataclasses.dataclass(frozen=True, kw_only=True)
class GroupLasso:
    """r = strength * sum over groups g of sqrt(P_g) ||theta_g||_2.

    theta_g holds all parameters that make the channels of g (filters, biases, BatchNorm's gamma and beta, of every
    layer that a residual sum ties together), P_g is their number. Only groups whose removal is exact are penalised.
    """

    strength: float = 1e-4

    def __post_init__(self) -> None:
        if not self.strength >= 0:
            raise RecipeError(f"GroupLasso.strength is {self.strength}: it must be zero or more")

    def bind(self, model: nn.Module, groups: ChannelGroups) -> "BoundGroupLasso":
        """Attach the penalty to the parameters of `model`, traced as `groups`. After an edit, bind again."""
        slices = GroupSlices.of(model, groups)
        weights = torch.where(groups.exact.to(slices.sizes().device), slices.sizes().sqrt(), 0.0)
        return BoundGroupLasso(slices, self.strength * weights)


@dataclasses.dataclass(frozen=True, eq=False)
class BoundGroupLasso:
    """The penalty on one model: value and proximal step.

    Attributes:
        slices: the parameters.
        weights: strength * sqrt(P_g), 0 for groups that are not penalised; [num_groups].
    """

    slices: GroupSlices
    weights: Tensor

    def value(self) -> Tensor:
        """Return r, differentiable; the proximal step does not need it."""
        return (self.weights * self.slices.norms()).sum()

    def prox_(self, step_size: float, optimizer: Optimizer | None = None) -> Tensor:
        """Do the proximal step: theta_g <- max(0, 1 - step_size * weight_g / ||theta_g||) theta_g.

        Call it after `optimizer.step()`, `step_size` the learning rate. With `optimizer`, the momentum of groups
        that are zero becomes zero too, so that they stay there. Returns the groups' norms before the step.
        """
        norms = self.shrink_(step_size * self.weights)
        if optimizer is not None:
            thresholds = step_size * self.weights
            alive = ((norms > thresholds) | (thresholds == 0)).to(norms.dtype)
            for name in ("momentum_buffer", "exp_avg"):
                self.slices.scale_(alive, lambda p, name=name: optimizer.state.get(p, {}).get(name))  # type: ignore[misc]
        return norms

    @torch.no_grad()
    def shrink_(self, thresholds: Tensor, norms: Tensor | None = None) -> Tensor:
        """Take `thresholds`, [num_groups], off the groups' norms; return the norms before, or `norms` if given."""
        norms = self.slices.norms() if norms is None else norms
        factors = torch.where(thresholds > 0, group_shrinkage(norms, thresholds), torch.ones_like(norms))
        self.slices.scale_(factors)
        self.slices.scale_buffers_((factors != 0).to(factors.dtype))  # a running mean decays, but never to zero
        return norms
