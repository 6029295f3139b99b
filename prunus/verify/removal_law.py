"""`prunus.check_removal`: the law, on anybody's model."""

import copy
import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from prunus.budget.removal import removal, spare_layers
from prunus.errors import BudgetError, TraceError
from prunus.graph import ChannelGroups, trace
from prunus.graph.trace import Inputs, arguments
from prunus.modules.modes import evaluating
from prunus.penalties.zeros import zero_, zero_groups
from prunus.records import RemovalRecord
from prunus.surgery import Plan, apply


def check_removal(
    model: nn.Module,
    inputs: Inputs,
    fraction: float = 0.5,
    seed: int = 0,
    *,
    kwargs: Mapping[str, Any] | None = None,
    whole_heads: bool = False,
) -> RemovalRecord:
    """Zero a random `fraction` of the exactly removable groups, remove them, and compare the outputs.

    The model is not changed. Outputs are compared in evaluation mode, in the model's own precision and, where the
    model runs in it, in float64; the record keeps the larger of the two differences. With a the zeroed network's
    outputs and b the smaller one's, `max_abs_diff` is max |a - b| and `max_rel_diff` is max |a - b| / max |a|, each
    maximum over all outputs together. The smaller network is traced anew: its parameters and MACs are counted on itself
    and must be those predicted. A refused group raises nothing: it is counted. `whole_heads` is that of `prunus.trace`.

    Raises:
        TraceError: the model cannot be read, or the smaller network costs something else than predicted.
        EditError: the model cannot be copied.
        BudgetError: `fraction` lies outside [0, 1].
    """
    if not 0 <= fraction <= 1:
        raise BudgetError(f"fraction is {fraction}: the share of groups to zero lies in [0, 1]")
    args = arguments(inputs)
    groups = trace(model, args, kwargs, whole_heads=whole_heads)
    zeroed = apply(Plan(), model)
    zero_(zeroed, groups, spare_layers(groups, _random_groups(groups, fraction, seed)))
    chosen = spare_layers(groups, zero_groups(zeroed, groups))  # the model may have had zeros of its own
    small = apply(removal(groups, chosen), zeroed)
    params, macs = _measured(groups, chosen, small, args, kwargs)
    absolute, relative = _difference_in_both(zeroed, small, args, kwargs)
    return RemovalRecord(
        max_rel_diff=relative,
        max_abs_diff=absolute,
        removed=int(chosen.sum()),
        refused=int(groups.refused.sum()),
        params_before=groups.params(),
        params_after=params,
        macs_before=groups.macs(),
        macs_after=macs,
    )


def _measured(
    groups: ChannelGroups, chosen: Tensor, small: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None
) -> tuple[int, int]:
    """Return the parameters and MACs counted on the smaller network, which must be those predicted."""
    params = sum(parameter.numel() for parameter in small.parameters())
    try:
        macs = trace(small, args, kwargs).macs()
    except TraceError as error:
        raise TraceError(
            f"without {int(chosen.sum())} groups that were called exact the network fails, so it was read wrongly; "
            f"please report it with the model's code: {error}"
        ) from error
    for kind, counted, predicted in (
        ("parameters", params, groups.params(~chosen)),
        ("MACs", macs, groups.macs(~chosen)),
    ):
        if counted != predicted:
            raise TraceError(
                f"{type(small).__name__} has {counted:,} {kind} after the removal of {int(chosen.sum())} groups, and "
                f"{predicted:,} were predicted: a rule in prunus/graph/rules counts an operator of it wrongly"
            )
    return params, macs


def _difference_in_both(
    first: nn.Module, second: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None
) -> tuple[float, float]:
    own = difference(first, second, args, kwargs)
    try:
        double = difference(copy.deepcopy(first).double(), copy.deepcopy(second).double(), *_doubled((args, kwargs)))
    except (RuntimeError, TypeError):  # code that writes its own precision down
        return own
    return max(own[0], double[0]), max(own[1], double[1])


def _doubled(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.double() if value.is_floating_point() else value
    if isinstance(value, Mapping):
        return {key: _doubled(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_doubled(item) for item in value)
    return value


def _random_groups(groups: ChannelGroups, fraction: float, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    candidates = groups.exact.nonzero().flatten()
    order = candidates[torch.randperm(candidates.numel(), generator=generator)]
    chosen = torch.zeros(len(groups), dtype=torch.bool)
    chosen[order[: round(fraction * candidates.numel())]] = True
    return chosen


def difference(
    first: nn.Module, second: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None
) -> tuple[float, float]:
    """Return the largest absolute difference of two networks' outputs in evaluation mode, and the same relative to
    the largest output. Both are infinite where one output is NaN and the other is not."""
    return apart(outputs(first, args, kwargs), outputs(second, args, kwargs))


@torch.no_grad()
def outputs(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None) -> list[Tensor]:
    """Return the tensors that a network puts out in evaluation mode, as float64."""
    with evaluating(model):
        return _tensors(model(*args, **(kwargs or {})))


def apart(first: list[Tensor], second: list[Tensor]) -> tuple[float, float]:
    """Return how far two networks' outputs are apart, as `difference` does."""
    differences, sizes = [0.0], [0.0]
    for a, b in zip(first, second, strict=True):
        same = (a == b) | (a.isnan() & b.isnan())
        distance = torch.where(same, 0.0, (a - b).abs()).nan_to_num(nan=math.inf, posinf=math.inf)
        differences.append(float(distance.max()))
        sizes.append(float(a.abs().nan_to_num(posinf=0.0).max()))
    absolute, size = max(differences), max(sizes)
    return absolute, absolute / max(size, 1e-30)


def _tensors(output: Any) -> list[Tensor]:
    """Return the tensors of an output as float64, containers opened."""
    if isinstance(output, Tensor):
        real = torch.view_as_real(output) if output.is_complex() else output
        return [real.double()] if output.numel() else []
    if dataclasses.is_dataclass(output) and not isinstance(output, Mapping):
        output = vars(output)
    if isinstance(output, Mapping):
        output = list(output.values())
    if isinstance(output, list | tuple):
        return [tensor for item in output for tensor in _tensors(item)]
    return []
