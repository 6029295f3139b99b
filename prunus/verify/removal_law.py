"""`prunus.check_removal`: check the law of removal (cutting zero groups changes nothing) on any model."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from prunus.errors import BudgetError, TraceError
from prunus.graph import ChannelGroups, trace
from prunus.modules.copying import copied
from prunus.modules.defaults import whatever_device
from prunus.modules.given import Inputs, arguments, check_readable
from prunus.modules.undisturbed import undisturbed
from prunus.penalties.zeros import zero_, zero_groups
from prunus.records import RemovalRecord
from prunus.surgery import apply
from prunus.surgery.removal import removal, spare_layers
from prunus.verify.rounding import change_of_outputs


@whatever_device
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
    outputs and b the smaller network's, `max_abs_diff` is max |a - b| over all outputs, and `max_rel_diff` is
    max |a - b| / max |a| of the output that is furthest beyond rounding. The smaller network is traced again: its
    parameters and MACs must equal the prediction. Refused groups are counted, and raise no error. `kwargs` and
    `whole_heads` are those of `prunus.trace`.

    Raises:
        TraceError: the model cannot be read, or the smaller network's cost differs from the prediction.
        EditError: the model cannot be copied.
        BudgetError: `fraction` is outside [0, 1].
    """
    if not 0 <= fraction <= 1:
        raise BudgetError(f"fraction is {fraction}: the share of groups to zero lies in [0, 1]")
    check_readable(model)
    with undisturbed(model):
        return _checked(model, arguments(inputs), kwargs, whole_heads, fraction, seed)


def _checked(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None,
    whole_heads: bool,
    fraction: float,
    seed: int,
) -> RemovalRecord:
    groups = trace(model, args, kwargs, whole_heads=whole_heads)
    zeroed = copied(model, isolated=True)
    zero_(zeroed, groups, spare_layers(groups, _random_groups(groups, fraction, seed)))
    chosen = spare_layers(groups, zero_groups(zeroed, groups))  # the model may have had zeros of its own
    small = apply(removal(groups, chosen), zeroed)
    params, macs = _counted(groups, chosen, small, args, kwargs)
    found = change_of_outputs(zeroed, small, args, kwargs)
    absolute, relative = map(max, (found.absolute, found.relative), found.double or (0.0, 0.0))
    return RemovalRecord(
        max_rel_diff=relative,
        max_abs_diff=absolute,
        max_rel_diff_float64=found.relative_float64,
        tolerance=found.tolerance,
        tolerance_float64=found.tolerance_float64,
        removed=int(chosen.sum()),
        refused=int(groups.refused.sum()),
        params_before=groups.params(),
        params_after=params,
        macs_before=groups.macs(),
        macs_after=macs,
    )


def _counted(
    groups: ChannelGroups, chosen: Tensor, small: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None
) -> tuple[int, int]:
    """Return the parameters and MACs counted on the smaller network, which must equal the prediction."""
    params = sum(parameter.numel() for parameter in small.parameters())
    try:
        macs = trace(small, args, kwargs).macs()
    except TraceError as error:
        raise TraceError(
            f"without {int(chosen.sum())} groups marked exact, the network fails: the trace is wrong; please report "
            f"it with the model's code: {error}"
        ) from error
    for kind, counted, predicted in (
        ("parameters", params, groups.params(~chosen)),
        ("MACs", macs, groups.macs(~chosen)),
    ):
        if counted != predicted:
            raise TraceError(
                f"{type(small).__name__} has {counted:,} {kind} after the removal of {int(chosen.sum())} groups, and "
                f"{predicted:,} were predicted: a rule in prunus/graph/rules miscounts one of its operators"
            )
    return params, macs


def _random_groups(groups: ChannelGroups, fraction: float, seed: int) -> Tensor:
    """Return a random `fraction` of the exactly removable groups: bool [num_groups]."""
    generator = torch.Generator().manual_seed(seed)
    candidates = groups.exact.nonzero().flatten()
    order = candidates[torch.randperm(candidates.numel(), generator=generator)]
    chosen = torch.zeros(len(groups), dtype=torch.bool)
    chosen[order[: round(fraction * candidates.numel())]] = True
    return chosen
