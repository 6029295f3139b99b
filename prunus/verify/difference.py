"""How far apart the outputs of two networks are: absolutely, and relative to the largest output."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from prunus.modules.modes import evaluating
from prunus.modules.stand_in import fed
from prunus.modules.tree import leaves


@dataclasses.dataclass
class Extremes:
    """The largest difference of outputs from the expected ones and the largest expected value, over all compared."""

    difference: float = 0.0
    magnitude: float = 0.0

    def add(self, expected: Tensor, actual: Tensor) -> None:
        """Compare two outputs of one shape. NaN equals NaN, inf equals inf; anything else non-finite is inf apart."""
        if not expected.numel():
            return
        same = (expected == actual) | (expected.isnan() & actual.isnan())
        distance = torch.where(same, 0.0, (expected - actual).abs()).nan_to_num(nan=math.inf, posinf=math.inf)
        self.difference = max(self.difference, float(distance.max()))
        self.magnitude = max(self.magnitude, float(expected.abs().nan_to_num(posinf=0.0).max()))

    @property
    def relative(self) -> float:
        """The largest difference over the largest expected value; inf where only zeros were expected."""
        if self.difference == 0:
            return 0.0
        return self.difference / self.magnitude if self.magnitude > 0 else math.inf


def difference(
    first: nn.Module, second: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None
) -> tuple[float, float]:
    """Return max |a - b| and max |a - b| / max |a| of the outputs a and b of two networks in evaluation mode.

    Each maximum is over all outputs together. Both are infinite where one output is NaN and the other is not.
    """
    return largest_difference(outputs(first, args, kwargs), outputs(second, args, kwargs))


def largest_difference(first: list[Tensor], second: list[Tensor]) -> tuple[float, float]:
    """Return the `difference` of two networks whose `outputs` are known."""
    extremes = Extremes()
    for expected, actual in zip(first, second, strict=True):
        extremes.add(expected, actual)
    return extremes.difference, extremes.relative


@torch.no_grad()
def outputs(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None) -> list[Tensor]:
    """Return all tensors that a network returns in evaluation mode, as float64; complex ones as pairs of numbers."""
    given, settings = fed((args, dict(kwargs or {})), with_values=True)  # a network may write into its inputs
    with evaluating(model):
        found = leaves(model(*given, **settings))
    tensors = [leaf for leaf in found if isinstance(leaf, Tensor) and leaf.numel()]
    return [(torch.view_as_real(each) if each.is_complex() else each).double() for each in tensors]
