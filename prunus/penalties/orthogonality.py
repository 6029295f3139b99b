"""Orthogonal filters: the decorrelation baseline OrthoReg (Rodriguez et al., ICLR 2017)."""

import dataclasses
import math
from collections.abc import Callable
from typing import Literal, final

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from prunus.errors import RecipeError
from prunus.graph import ChannelGroups
from prunus.modules.defaults import whatever_device
from prunus.penalties.interface import BoundPenalty, Penalty, When, check_step, check_when
from prunus.penalties.matrices import MatrixWeight, matrix_weights, replace_


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Orthogonality(Penalty):
    """r = strength * sum over layers and pairs of filters i < j of c(G_ij), G the filters' cosines.

    "global" c(G) = G^2 / 2 reduces all cosines; "local" c(G) = ln(1 + exp(L (G - 1))) only those of filters that
    resemble each other. The penalty removes no channels; it serves as a baseline.

    Attributes:
        strength: beta, 1e-3 to 1e-1.
        scope: which cosines are reduced.
        sharpness: L of "local".
        when: the update follows each optimizer step, or each epoch.
        layers: layers to penalise, as globs over their paths; None: all convolutions and linear layers.
    """

    strength: float = 1e-3
    scope: Literal["global", "local"] = "local"
    sharpness: float = 10.0
    when: When = "step"
    layers: str | tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.strength < math.inf or not 0 < self.sharpness < math.inf:
            raise RecipeError(
                f"Orthogonality: strength {self.strength} must be zero or more, sharpness {self.sharpness} above zero, "
                "both finite"
            )
        if self.scope not in ("global", "local"):
            raise RecipeError(f'Orthogonality.scope is {self.scope!r}: it must be "global" or "local"')
        check_when(self)

    @whatever_device
    def bind(self, model: nn.Module, groups: ChannelGroups | None = None) -> "BoundOrthogonality":
        """Attach the penalty to `model`, as `Penalty.bind` does; the channel groups are not needed."""
        return BoundOrthogonality(matrix_weights(model, self.layers), self)


@final
@dataclasses.dataclass(frozen=True, eq=False)
class BoundOrthogonality(BoundPenalty):
    """The penalty on one model."""

    layers: list[MatrixWeight]
    settings: Orthogonality

    @property
    def when(self) -> When:  # type: ignore[override]  # read only here
        """The event after which the update is due."""
        return self.settings.when

    def value(self) -> Tensor:
        """Return r, differentiable."""
        cost = _global_cost if self.settings.scope == "global" else self._local_cost
        total = torch.zeros(())
        for layer in self.layers:
            cosines = _cosines(functional.normalize(layer.view(layer.weight), dim=-1))
            pairs = cost(cosines).triu(1).sum()
            total = total.to(pairs) + self.settings.strength * pairs
        return total

    @torch.no_grad()
    @whatever_device
    def prox_(self, step_size: float, optimizer: Optimizer | None = None) -> None:
        """Apply OrthoReg's update W <- W - step_size * strength * A W_hat, an explicit, not a proximal step.

        W_hat are the row-normalised filters and A = c'(W_hat W_hat^T) with a zero diagonal: strength * A W_hat is
        dr / dW_hat.
        """
        step_size = check_step(step_size, optimizer, [layer.weight for layer in self.layers])
        slope: Callable[[Tensor], Tensor] = (lambda cosines: cosines) if self.settings.scope == "global" else self._pull

        def update(matrices: Tensor, size: float) -> Tensor:
            rows = functional.normalize(matrices, dim=-1)
            pulls = slope(_cosines(rows))
            pulls.diagonal(dim1=-2, dim2=-1).zero_()
            return matrices - size * (pulls @ rows)

        replace_(self.layers, [step_size * self.settings.strength] * len(self.layers), update)

    def _local_cost(self, cosines: Tensor) -> Tensor:
        return functional.softplus(self.settings.sharpness * (cosines - 1))

    def _pull(self, cosines: Tensor) -> Tensor:
        """Return L exp(L G) / (exp(L G) + exp(L)), which is L times the logistic function of L (G - 1)."""
        return self.settings.sharpness * torch.sigmoid(self.settings.sharpness * (cosines - 1))


def _global_cost(cosines: Tensor) -> Tensor:
    return cosines.square() / 2


def _cosines(rows: Tensor) -> Tensor:
    return rows @ rows.mT
