"""Decompose: a k x k convolution becomes k x 1, then 1 x k.

With L channels between them, for each group of C inputs and F outputs:

    z[l] = sum over i, a of P[l, i, a] x[i, h + a, w],   y[o] = sum over l, b of Q[o, l, b] z[l, h, w + b],

k C L + k L F weights in place of k^2 C F, and the same receptive field. P and Q start fresh (Alvarez & Petersson 2016,
arXiv 1606.05426), or as the best approximation of rank L of the trained kernel as a (C k) x (F k) matrix.
"""

import dataclasses
from typing import Any, ClassVar

from torch import Tensor, nn

from prunus.errors import EditError
from prunus.surgery.argument_types import checked
from prunus.surgery.choosing import Layers, choose
from prunus.surgery.factors import Factors, factors_for
from prunus.surgery.filters import Filter, read
from prunus.surgery.fresh_weights import fresh_bias, fresh_weight, generator
from prunus.surgery.layers import Layer, ReplaceLayer, layer_at
from prunus.surgery.plan import Plan
from prunus.surgery.ranks import check_rank, chosen_rank
from prunus.surgery.svd import balanced_factors


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecomposeLayer(ReplaceLayer):
    """Replace a two-dimensional convolution, direct or transposed, by a vertical and a horizontal one.

    Attributes:
        rank: channels between the two per group.
        nonlinear: whether a ReLU is between them; the vertical convolution then has a bias.
        fresh: whether the weights are drawn at random; otherwise they are computed from the layer's weight by an SVD.
        seed: seed of fresh weights.
    """

    edit_name: ClassVar[str] = "Decompose"
    rank: int
    nonlinear: bool = False
    fresh: bool = False
    seed: int = 0

    @property
    def exact(self) -> bool:
        """Whether the function is kept: a linear pair of full rank from the layer's own weights."""
        return not self.fresh and not self.nonlinear and self.rank == full_rank(self.layer)

    def factors(self, old: Any) -> Factors:
        """Return the pair that replaces the layer `old`."""
        if reason := undecomposable(old):
            raise EditError(f"{self.layer.path}: {reason}")
        check_rank(self.rank, None if self.fresh else full_rank(self.layer), self.layer.path)
        part = read(old, self.layer.path)
        pair = self._fresh(part) if self.fresh else separated(part, self.rank, self.layer.path)
        if self.nonlinear and not self.fresh:
            silent = pair[0].weight.new_zeros(pair[0].channels[1])
            pair = dataclasses.replace(pair[0], bias=silent), pair[1]
        return factors_for(old, pair, "decompose", nonlinear=self.nonlinear)

    def num_created(self) -> int:
        """Return the number of weights of the pair."""
        outer, inner, kernel = self.layer.sizes
        return self.layer.groups * self.rank * (inner * kernel[0] + outer * kernel[-1]) if kernel else 0

    def summary(self) -> str:
        """Describe the edit in one line."""
        between = " and a ReLU" if self.nonlinear else ""
        start = "fresh" if self.fresh else "from its weights"
        channels = self.rank * self.layer.groups
        return f"decompose {self.layer} with {channels} channels{between} between, {start}"

    def _fresh(self, part: Filter) -> tuple[Filter, Filter]:
        numbers = generator(self.seed, self.layer.path)
        groups, outer, inner, high, wide = part.weight.shape
        vertical = fresh_weight((groups, self.rank, inner, high, 1), numbers, like=part.weight)
        first = fresh_bias(vertical, numbers) if self.nonlinear else None
        horizontal = fresh_weight((groups, outer, self.rank, 1, wide), numbers, like=part.weight)
        last = None if part.bias is None else fresh_bias(horizontal, numbers)
        return _pair(part, vertical, horizontal, first, last)


@checked
def decompose(
    model: nn.Module,
    layers: Layers = "k>1",
    *,
    rank: int | None = None,
    energy: float | None = None,
    width: int | None = None,
    nonlinear: bool = False,
    skip_first: int = 0,
    seed: int = 0,
) -> Plan:
    """Return the plan that decomposes the k x k convolutions of `model` that `layers` names.

    Exactly one of `rank`, `energy` and `width` determines the number of channels between the two convolutions.

    Args:
        model: any network; it is not changed.
        layers: globs over dotted paths and rules such as "k>1", as `prunus.surgery.choosing.choose` reads them.
        rank: channels between per group, so `rank * groups` in all; weights by an SVD of the layer's weight.
        energy: in (0, 1]: take the smallest rank whose singular values (not squared) make up this share of the sum.
        width: channels between in all, a multiple of the groups; the weights start fresh.
        nonlinear: put a ReLU between. The function changes: train the network further.
        skip_first: number of matching layers to leave out, counted from the input.
        seed: seed of the fresh weights, which depend only on it and the layer's path.

    Raises:
        EditError: a pattern matches nothing, a layer named by its path cannot be decomposed, a number is out of range.
    """
    if sum(value is not None for value in (rank, energy, width)) != 1:
        raise EditError("decompose takes exactly one of rank, energy (both from the weights) and width (fresh)")
    edits = []
    for path, module in choose(model, layers, skip_first, undecomposable):
        layer = layer_at(path, module)
        if width is not None:
            chosen = _width_per_group(width, layer)
        else:
            chosen = chosen_rank(module, rank, energy, full_rank(layer), spatial_matrices, path)
        edits.append(DecomposeLayer(layer=layer, rank=chosen, nonlinear=nonlinear, fresh=width is not None, seed=seed))
    return Plan(tuple(edits))


def undecomposable(module: Any) -> str | None:
    """Return why a layer cannot be decomposed, None if it can."""
    if not isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        return f"a {type(module).__name__} has no height and width to decompose into"
    if min(module.kernel_size) == 1:
        high, wide = module.kernel_size
        return f"its kernel is {high} x {wide}: with a side of 1 there is nothing to decompose"
    return None


def full_rank(layer: Layer) -> int:
    """Return the rank at which nothing is lost: the smaller side of the (C k) x (F k) matrix."""
    outer, inner, kernel = layer.sizes
    if len(kernel) != 2:
        raise EditError(f"{layer.path}: a {layer.kind} has no height and width to decompose into")
    high, wide = kernel
    return min(inner * high, outer * wide)


def spatial_matrices(part: Filter) -> Tensor:
    """Return the kernel as matrices [groups, C k_h, F k_w]."""
    return part.weight.permute(0, 2, 3, 1, 4).flatten(3).flatten(1, 2)


def separated(part: Filter, rank: int, place: str) -> tuple[Filter, Filter]:
    """Return the vertical and the horizontal convolution of a rank whose product is closest to `part`."""
    groups, outer, inner, high, wide = part.weight.shape
    left, right = balanced_factors(spatial_matrices(part), rank, place)
    vertical = left.reshape(groups, inner, high, rank).permute(0, 3, 1, 2)[..., None]
    horizontal = right.reshape(groups, rank, outer, wide).transpose(1, 2)[..., None, :]
    return _pair(part, vertical, horizontal, None, part.bias)


def _pair(
    part: Filter, vertical: Tensor, horizontal: Tensor, first: Tensor | None, last: Tensor | None
) -> tuple[Filter, Filter]:
    """Return the two filters, each with stride, dilation and padding only along its own kernel: the two commute."""
    none = (0, 0)
    (s, t), (d, e), (p, q), (a, b) = part.stride, part.dilation, part.padding, part.output_padding
    upper = dataclasses.replace(
        part, weight=vertical, bias=first, stride=(s, 1), dilation=(d, 1), padding=(p, none), output_padding=(a, 0)
    )
    lower = dataclasses.replace(
        part, weight=horizontal, bias=last, stride=(1, t), dilation=(1, e), padding=(none, q), output_padding=(0, b)
    )
    return upper, lower


def _width_per_group(width: int, layer: Layer) -> int:
    check_rank(width, None, layer.path, "width")
    if width % layer.groups:
        raise EditError(f"{layer.path}: a width of {width} cannot be shared among its {layer.groups} groups")
    return width // layer.groups
