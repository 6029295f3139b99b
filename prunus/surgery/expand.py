"""Expand: a layer becomes consecutive linear layers with more weights to train; `contract` makes them one layer again.

ExpandNets (Guo, Alvarez & Salzmann, NeurIPS 2020), at a rate r, for each group m -> n of a layer:

- "cl": 1 x 1 (m -> r m), k x k (r m -> r n), 1 x 1 (r n -> n);
- "ck": for odd k > 3, (k - 1) / 2 convolutions of 3 x 3, through r m, ..., r n channels;
- "fc": linear layers m -> r m -> r n -> n.

All padding is in the first factor, the stride in the k x k factor ("ck": the last), so that `contract` is exact.
"""

import dataclasses
import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from prunus.errors import EditError
from prunus.surgery.argument_types import checked
from prunus.surgery.choosing import Layers, choose
from prunus.surgery.expansion_kinds import KINDS, kernels_of, num_widths, suited, unfit, widths_of
from prunus.surgery.factors import Factors, factors_for
from prunus.surgery.filters import Filter, at_hand, read, taps
from prunus.surgery.fresh_weights import fresh_bias, fresh_weight, generator
from prunus.surgery.function_preserving import preserving_weights
from prunus.surgery.layers import ReplaceLayer, layer_at
from prunus.surgery.plan import Plan


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExpandLayer(ReplaceLayer):
    """Replace a layer by linear factors.

    Attributes:
        widths: channels between the factors per group: two numbers for "cl" and "fc", (k - 3) / 2 for "ck".
        kind: "cl", "ck" or "fc".
        keep_function: whether the factors compute the layer's function; otherwise they are drawn at random.
        nonlinear: whether ReLUs are between the factors, for a stage of training before `linearize`.
        seed: seed of fresh weights, and of the directions that a kept function leaves free.
    """

    edit_name: ClassVar[str] = "Expand"
    widths: tuple[int, ...]
    kind: str
    keep_function: bool = False
    nonlinear: bool = False
    seed: int = 0

    @property
    def exact(self) -> bool:
        """Whether the function is kept."""
        return self.keep_function

    def factors(self, old: Any) -> Factors:
        """Return the factors that replace the layer `old`."""
        if reason := unfit(old, self.kind):
            raise EditError(f"{self.layer.path}: {reason}")
        if self.keep_function and self.nonlinear:
            raise EditError(f"{self.layer.path}: with a ReLU between its factors the function is not kept: choose one")
        if len(self.widths) != num_widths(self.layer, self.kind) or min(self.widths) < 1:
            raise EditError(
                f"{self.layer.path}: {self.kind} has {num_widths(self.layer, self.kind)} widths between its factors, "
                f"each at least 1; got {list(self.widths)}"
            )
        parts = self._factors(read(old, self.layer.path, at_hand))
        return factors_for(old, parts, "expand", nonlinear=self.nonlinear)

    def num_created(self) -> int:
        """Return the number of weights of the factors."""
        outer, inner, kernel = self.layer.sizes
        kernels = kernels_of(kernel, self.kind) if self.kind in KINDS else []
        sides = [inner, *self.widths, outer]
        return self.layer.groups * sum(a * b * taps(k) for a, b, k in zip(sides, sides[1:], kernels, strict=False))

    def summary(self) -> str:
        """Describe the edit in one line."""
        widths = ", ".join(str(width * self.layer.groups) for width in self.widths)
        between = ", ReLU between" if self.nonlinear else ""
        start = "its function kept" if self.keep_function else "fresh"
        return f"expand {self.layer} through {widths} channels ({self.kind}{between}), {start}"

    def _factors(self, part: Filter) -> list[Filter]:
        numbers = generator(self.seed, self.layer.path)
        kernels = kernels_of(part.kernel, self.kind)
        outer, inner = part.weight.shape[1:3]
        pairs = zip((inner, *self.widths), (*self.widths, outer), kernels, strict=True)
        weights = [fresh_weight((part.groups, b, a, *kernel), numbers, like=part.weight) for a, b, kernel in pairs]
        if self.keep_function:
            weights = preserving_weights(part.weight, weights, numbers, self.layer.path)
        return self._placed(part, weights, numbers)

    def _placed(self, part: Filter, weights: list[Tensor], numbers: torch.Generator) -> list[Filter]:
        """Return the factors with padding, stride, dilation and biases.

        Every factor has a bias if the layer has one, except before a transposed kernel, where it could not be
        contracted. If the function is kept, all biases but the last start at zero.
        """
        core = 1 if self.kind == "cl" else len(weights) - 1
        result = []
        for number, weight in enumerate(weights):
            factor = part.at_rest(weight)
            if self.kind == "ck":
                factor = dataclasses.replace(factor, dilation=part.dilation)
            if number == core and part.transposed:
                factor = dataclasses.replace(part, weight=weight)
            elif number == core:
                factor = dataclasses.replace(factor, stride=part.stride, dilation=part.dilation)
            if number == 0 and not part.transposed:
                factor = dataclasses.replace(factor, padding=part.padding, mode=part.mode)
            bias = None
            if part.bias is not None and not (part.transposed and number < core):
                bias = self._bias(part.bias, weight, numbers, last=number + 1 == len(weights))
            result.append(dataclasses.replace(factor, bias=bias))
        return result

    def _bias(self, given: Tensor, weight: Tensor, numbers: torch.Generator, *, last: bool) -> Tensor:
        if not self.keep_function:
            return fresh_bias(weight, numbers)
        return given if last else weight.new_zeros(weight.shape[0] * weight.shape[1])


@checked
def expand(
    model: nn.Module,
    layers: Layers = "k>1",
    rate: float = 4,
    *,
    kind: str = "auto",
    keep_function: bool = False,
    nonlinear: bool = False,
    skip_first: int = 0,
    seed: int = 0,
) -> Plan:
    """Return the plan that expands the layers of `model` that `layers` names. `contract` undoes it exactly.

    Guo, Alvarez & Salzmann, ExpandNets, NeurIPS 2020 (arXiv 1811.10495).

    Args:
        model: any network; it is not changed.
        layers: globs over dotted paths and rules such as "k>1", as `prunus.surgery.choosing.choose` reads them.
        rate: r >= 1; 4 is usual.
        kind: "cl", "ck", "fc", or "auto": "ck" for a convolution's square kernel of odd k > 3 (with `keep_function`,
            only if the rate is large enough to keep it), "cl" for other kernels, "fc" for linear layers.
        keep_function: start from factors that compute the layers' current function, with random directions where the
            function leaves them free ("ck" then needs r >= 4 for k = 5 and 7, r >= 9 beyond); else from fresh factors.
        nonlinear: put ReLUs between the factors; train, then `prunus.surgery.linearize`, train again, `contract`.
        skip_first: number of matching layers to leave out, counted from the input.
        seed: seed of the fresh weights.

    Raises:
        EditError: a pattern matches nothing, a layer named by its path cannot be expanded, the rate is out of range.
    """
    if type(rate) not in (int, float) or not 1 <= rate < math.inf:
        raise EditError(f"the rate of an expansion is at least 1 (4 is usual), not {rate!r}")
    if kind not in KINDS:
        raise EditError(f"unknown kind {kind!r}; known: {', '.join(KINDS)}")
    if keep_function and nonlinear:
        raise EditError("with a ReLU between its factors a layer's function is not kept: choose one of the two")
    edits = []
    for path, module in choose(model, layers, skip_first, lambda module: unfit(module, kind)):
        layer = layer_at(path, module)
        named = suited(layer, module, rate, keep_function) if kind == "auto" else kind
        widths = widths_of(layer, named, rate)
        edits.append(
            ExpandLayer(
                layer=layer, widths=widths, kind=named, keep_function=keep_function, nonlinear=nonlinear, seed=seed
            )
        )
    return Plan(tuple(edits))
