"""Determine whether a change of outputs is rounding: in float64, and against the network's own rounding in float32.

No bound in float32 holds for every network: a deep or badly scaled network rounds by more than any number chosen
beforehand. So each output y of a network in its own precision is compared with the output y* in float64: the output's
own rounding is u = max |y - y*| / max |y|. A change is rounding if for every output it is

    in float64 at most max(1e-12, 10 u eps64 / eps)      the proof; eps: the machine epsilon of each precision
    in the network's own precision at most max(1e-5, 10 u)

If a network does not run in float64 (its code names a precision, or its device does not support it), u is not known,
and only the fixed bound of its own precision holds (in half precision, ten times eps); the printed change states this.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from prunus.modules.copying import copied
from prunus.modules.tensors import in_float64
from prunus.records import EXACT
from prunus.verify.difference import Extremes, extremes_of, named_outputs, outputs, relatives

ROUNDINGS = 10  # multiples of its own rounding by which another order of operations may change a network's outputs


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outputs:
    """The outputs of a network for an example.

    Attributes:
        names: the name of each output.
        own: the outputs in the network's own precision.
        double: the outputs in float64; None where the network does not run in it.
        eps: the machine epsilon of its own precision.
    """

    names: list[str]
    own: list[Tensor]
    double: list[Tensor] | None
    eps: float

    @property
    def scales(self) -> list[float]:
        """The largest finite value of each output, to which all changes of the output are relative."""
        return [each.magnitude for each in extremes_of(self.own, self.own)]

    def rounding(self) -> list[float]:
        """Return each output's own relative rounding; 0 where it is not known or not finite."""
        if self.double is None:
            return [0.0] * len(self.own)
        found = relatives(extremes_of(self.double, self.own), self.scales)
        return [each if math.isfinite(each) else 0.0 for each in found]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Change:
    """The difference between two networks' outputs, and the bounds within which it is rounding.

    Attributes:
        absolute: max |a - b| in the networks' own precision, over all outputs.
        relative: max |a - b| / max |a| of the output whose change is largest relative to its bounds.
        double: (absolute, relative) in float64; None where the networks do not run in it.
        tolerance: the largest `relative` that counts as rounding.
        tolerance_float64: the largest relative change in float64 that counts as rounding.
        output: the name of that output, "" where there is only one.
    """

    absolute: float
    relative: float
    double: tuple[float, float] | None
    tolerance: float
    tolerance_float64: float
    output: str = ""

    @property
    def relative_float64(self) -> float | None:
        """The relative change in float64."""
        return None if self.double is None else self.double[1]

    @property
    def is_rounding(self) -> bool:
        """Whether rounding explains the whole change."""
        proved = self.double is None or self.double[1] <= self.tolerance_float64
        return proved and self.relative <= self.tolerance

    def __str__(self) -> str:
        """Return both changes with their bounds."""
        place = f" in the output {self.output}" if self.output else ""
        own = f"{self.relative:.1e} relative{place} in its own precision (at most {self.tolerance:.1e} is rounding)"
        if self.double is None:
            return f"{own}; it does not run in float64, so that its own rounding is not known"
        return f"{own}, {self.double[1]:.1e} in float64 (at most {self.tolerance_float64:.1e})"


def outputs_in_both(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None = None,
    double: nn.Module | None = None,
    *,
    disposable: bool = False,
) -> Outputs:
    """Return the outputs of `model` in its own precision and in float64.

    `double` is a float64 copy; a `disposable` network is itself converted, which saves the memory of a copy.
    """
    own, eps = named_outputs(model, args, kwargs), _eps(model)
    try:
        if double is None:
            double = (model if disposable else copied(model, isolated=True)).double()
        precise = outputs(double, *in_float64((args, kwargs)))
    except (RuntimeError, TypeError):
        precise = None
    if precise is not None and [each.shape for each in precise] != [each.shape for _, each in own]:
        precise = None  # its code behaves differently in another precision
    return Outputs(names=[name for name, _ in own], own=[each for _, each in own], double=precise, eps=eps)


def change(before: Outputs, after: Outputs) -> Change:
    """Return the change from the outputs `before` to those `after`, with bounds from the rounding of those before.

    Of several outputs, the one whose change is largest relative to its bounds is described.
    """
    eps64 = torch.finfo(torch.float64).eps
    fixed = EXACT["float64"] if before.eps <= eps64 else max(EXACT["float32"], ROUNDINGS * before.eps)
    own = extremes_of(before.own, after.own)
    known = before.double is not None and after.double is not None
    double = extremes_of(before.double or (), after.double or ()) if known else [Extremes()] * len(own)
    changes = [
        Change(
            absolute=max(each.difference for each in own),
            relative=relative,
            double=(max(each.difference for each in double), relative64) if known else None,
            tolerance=max(fixed, ROUNDINGS * rounding),
            tolerance_float64=max(EXACT["float64"], ROUNDINGS * rounding * eps64 / before.eps),
            output=name if len(own) > 1 else "",
        )
        for name, relative, relative64, rounding in zip(
            before.names,
            relatives(own, before.scales),
            relatives(double, before.scales),
            before.rounding(),
            strict=True,
        )
    ]
    none = Change(
        absolute=0.0,
        relative=0.0,
        double=(0.0, 0.0) if known else None,
        tolerance=fixed,
        tolerance_float64=EXACT["float64"],
    )
    return max(changes, key=_share_of_tolerance, default=none)


def _share_of_tolerance(found: Change) -> float:
    share = max(found.relative / found.tolerance, (found.relative_float64 or 0.0) / found.tolerance_float64)
    return math.inf if math.isnan(share) else share


def change_of_outputs(
    first: nn.Module, second: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None
) -> Change:
    """Return the change from the outputs of the network `first` to those of `second`, in evaluation mode."""
    return change(outputs_in_both(first, args, kwargs), outputs_in_both(second, args, kwargs))


def _eps(model: nn.Module) -> float:
    """Return the largest machine epsilon among a network's parameters and buffers; float32's where it has none."""
    found = {tensor.dtype for tensor in (*model.parameters(), *model.buffers()) if tensor.is_floating_point()}
    return max((torch.finfo(dtype).eps for dtype in found), default=torch.finfo(torch.float32).eps)
