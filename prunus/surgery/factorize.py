"""Factorize: a trained layer of low rank becomes two layers that compute it with fewer multiply-adds.

The weight is the matrix W, K x (C k_h k_w), W = U S V^T (Alvarez & Salzmann, NIPS 2017). At rank r a convolution
C -> K becomes one C -> r with its kernel and one r -> K of 1 x 1, with r (C k_h k_w + K) weights; a linear layer
becomes two. The spatial scheme uses the (C k_h) x (K k_w) matrix: k_h x 1, then 1 x k_w, r (C k_h + K k_w) weights.
"""

import dataclasses
from typing import Any, ClassVar

from torch import Tensor, nn

from prunus.errors import EditError
from prunus.surgery.argument_types import checked
from prunus.surgery.choosing import Layers, choose
from prunus.surgery.decompose import full_rank as spatial_rank
from prunus.surgery.decompose import separated, spatial_matrices, undecomposable
from prunus.surgery.factors import Factors, factors_for
from prunus.surgery.filters import Filter, read, taps
from prunus.surgery.layers import Layer, ReplaceLayer, layer_at
from prunus.surgery.plan import Plan
from prunus.surgery.ranks import check_rank, chosen_rank
from prunus.surgery.svd import balanced_factors

SCHEMES = ("channel", "spatial")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FactorizeLayer(ReplaceLayer):
    """Replace a layer by two layers of a lower rank, with weights computed from its own.

    Attributes:
        rank: channels between the two per group.
        scheme: "channel" (k x k, then 1 x 1; or two linear layers) or "spatial" (k x 1, then 1 x k).
    """

    edit_name: ClassVar[str] = "Factorize"
    rank: int
    scheme: str = "channel"

    @property
    def exact(self) -> bool:
        """Whether the function is kept: at full rank."""
        return self.rank == full_rank(self.layer, self.scheme)

    def factors(self, old: Any) -> Factors:
        """Return the two layers that replace the layer `old`."""
        if reason := _unfit(old, self.scheme):
            raise EditError(f"{self.layer.path}: {reason}")
        check_rank(self.rank, full_rank(self.layer, self.scheme), self.layer.path)
        part, place = read(old, self.layer.path), self.layer.path
        pair = separated(part, self.rank, place) if self.scheme == "spatial" else _split(part, self.rank, place)
        return factors_for(old, pair, "factorize")

    def summary(self) -> str:
        """Describe the edit in one line."""
        full = full_rank(self.layer, self.scheme)
        return f"factorise {self.layer} at rank {self.rank} of {full} ({self.scheme})"


@checked
def factorize(
    model: nn.Module,
    layers: Layers = "*",
    *,
    rank: int | None = None,
    energy: float | None = None,
    scheme: str = "channel",
    skip_first: int = 0,
) -> Plan:
    """Return the plan that factorises the layers of `model` that `layers` names, where that makes them smaller.

    A layer is left as it is unless r (C k_h k_w + K) < K C k_h k_w (the spatial scheme: r (C k_h + K k_w)), so the plan
    may be empty. A smaller layer is not always faster: measure it.

    Args:
        model: any network; it is not changed.
        layers: globs over dotted paths and rules such as "k>1", as `prunus.surgery.choosing.choose` reads them.
        rank: r per group; or
        energy: in (0, 1]: take the smallest rank whose singular values (not squared) make up this share of the sum.
        scheme: "channel" or "spatial".
        skip_first: number of matching layers to leave out, counted from the input.

    Raises:
        EditError: a pattern matches nothing, a layer named by its path cannot be factorised, a number is out of range.
    """
    if (rank is None) == (energy is None):
        raise EditError("factorize takes either a rank or an energy")
    if scheme not in SCHEMES:
        raise EditError(f"unknown scheme {scheme!r}; known: {', '.join(SCHEMES)}")
    matrices = spatial_matrices if scheme == "spatial" else _matrices
    edits = []
    for path, module in choose(model, layers, skip_first, lambda module: _unfit(module, scheme)):
        layer = layer_at(path, module)
        chosen = chosen_rank(module, rank, energy, full_rank(layer, scheme), matrices, path)
        if is_smaller(layer, chosen, scheme):
            edits.append(FactorizeLayer(layer=layer, rank=chosen, scheme=scheme))
    return Plan(tuple(edits))


def full_rank(layer: Layer, scheme: str = "channel") -> int:
    """Return the rank at which nothing is lost."""
    outer, inner, kernel = layer.sizes
    return spatial_rank(layer) if scheme == "spatial" else min(outer, inner * taps(kernel))


def is_smaller(layer: Layer, rank: int, scheme: str = "channel") -> bool:
    """Return whether the two layers have fewer weights than the one."""
    outer, inner, kernel = layer.sizes
    before = outer * inner * taps(kernel)
    if scheme == "spatial":
        high, wide = kernel
        return rank * (inner * high + outer * wide) < before
    return rank * (inner * taps(kernel) + outer) < before


def _unfit(module: Any, scheme: str) -> str | None:
    if scheme not in SCHEMES:
        return f"unknown scheme {scheme!r}; known: {', '.join(SCHEMES)}"
    return undecomposable(module) if scheme == "spatial" else None


def _matrices(part: Filter) -> Tensor:
    """Return the weight as matrices [groups, K, C k_h k_w]."""
    return part.weight.flatten(2)


def _split(part: Filter, rank: int, place: str) -> tuple[Filter, Filter]:
    groups, _, inner = part.weight.shape[:3]
    left, right = balanced_factors(_matrices(part), rank, place)
    first = dataclasses.replace(part, weight=right.reshape(groups, rank, inner, *part.kernel), bias=None)
    mixing = left.reshape(*left.shape, *[1] * len(part.kernel))
    return first, part.at_rest(mixing, part.bias)
