"""The difference of two networks' outputs: absolute, and relative to the largest value of each output."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from prunus.modules.defaults import users_device
from prunus.modules.modes import evaluating
from prunus.modules.stand_in import fed
from prunus.modules.tree import named_leaves


@dataclasses.dataclass
class Extremes:
    """The largest difference between outputs and expected outputs, and the largest expected value."""

    difference: float = 0.0
    magnitude: float = 0.0

    def add(self, expected: Tensor, actual: Tensor) -> None:
        """Compare two outputs of one shape. NaN equals NaN, inf equals inf; else a non-finite value differs by inf."""
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


def relatives(found: Sequence[Extremes], scales: Sequence[float] | None = None) -> list[float]:
    """Return the difference of each output relative to its own largest expected value, or to `scales`.

    With a scale per output, boxes in pixels do not hide wrong scores. Where only zeros were expected, the scale is the
    largest value of all outputs; if zeros were expected everywhere, a difference is inf.
    """
    given = [each.magnitude for each in found] if scales is None else scales
    largest = max(given, default=0.0)
    pairs = zip(found, given, strict=True)
    return [dataclasses.replace(each, magnitude=scale or largest).relative for each, scale in pairs]


def difference(
    first: nn.Module, second: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None
) -> tuple[float, float]:
    """Return max |a - b| and max |a - b| / max |a| of the outputs a and b of two networks in evaluation mode.

    Each output is compared with its own largest value; the largest ratio is returned. Both numbers are infinite where
    one output is NaN and the other is not.
    """
    return largest_difference(outputs(first, args, kwargs), outputs(second, args, kwargs))


def largest_difference(first: Iterable[Tensor], second: Iterable[Tensor]) -> tuple[float, float]:
    """Return the `difference` of two networks from their `outputs`."""
    found = extremes_of(first, second)
    return max((each.difference for each in found), default=0.0), max(relatives(found), default=0.0)


def extremes_of(first: Iterable[Tensor], second: Iterable[Tensor]) -> list[Extremes]:
    """Return the extremes of each output, with `first` as the expected ones."""
    found = list[Extremes]()
    for expected, actual in zip(first, second, strict=True):
        found.append(Extremes())
        found[-1].add(expected, actual)
    return found


def outputs(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None) -> list[Tensor]:
    """Return all tensors that a network returns in evaluation mode, in float64; complex numbers as pairs."""
    return [tensor for _, tensor in named_outputs(model, args, kwargs)]


@torch.no_grad()
def named_outputs(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None
) -> list[tuple[str, Tensor]]:
    """Return the `outputs` as pairs (name, tensor)."""
    given, settings = fed((args, dict(kwargs or {})), with_values=True)  # a network may write into its inputs
    with evaluating(model), users_device():
        found = named_leaves(model(*given, **settings))
    tensors = [(name, leaf) for name, leaf in found if isinstance(leaf, Tensor) and leaf.numel()]
    return [(name, (torch.view_as_real(each) if each.is_complex() else each).double()) for name, each in tensors]
