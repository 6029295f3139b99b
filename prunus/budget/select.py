"""`prunus.select`: determine which channel groups to remove, as a plan."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from prunus.budget.budget import Budget
from prunus.budget.greedy_selection import floors
from prunus.budget.latency_search import LatencySearch, Meter, checked_meter
from prunus.budget.modelled_latency import ModellingMeter, reached
from prunus.budget.selection import selection
from prunus.errors import BudgetError
from prunus.graph import ChannelGroups
from prunus.modules.defaults import whatever_device
from prunus.penalties import GroupSlices
from prunus.penalties.keep import kept_groups, patterns_of
from prunus.penalties.zeros import zero_groups
from prunus.surgery import Plan, apply
from prunus.surgery.removal import removal, spare_layers

SEARCHES = 2  # at most, if the network found is too slow


@whatever_device
def select(
    model: nn.Module,
    groups: ChannelGroups,
    *,
    budget: Budget | None = None,
    importance: Tensor | None = None,
    meter: Meter | None = None,
    keep: str | Sequence[str] = (),
    multiple_of: int = 1,
) -> Plan:
    """Return the plan that removes channel groups of `model`.

    Without a budget, these are the groups that are zero, or zero wherever they are read (behind a batch norm whose
    scale and shift are zero, behind a mask of torch.nn.utils.prune); their removal is exact. With a budget, these are
    the groups with the least importance per cost saved, until the budget holds, or those that `budget.solver` finds;
    removing them changes the function unless they are zero. With a meter that models the latency
    (`prunus.TargetMeter`), a budget in milliseconds is solved under the model, measured, and solved again under the
    corrected model (`prunus.budget.milliseconds`).

    Args:
        model: the network, as traced.
        groups: `prunus.trace` of it.
        budget: bounds on the network's cost.
        importance: [num_groups]; default `relative_norms`.
        meter: measures a network's latency in milliseconds, for a budget that bounds it:
            `prunus.deploy.LatencyMeter(model, example)`, or your own function that runs the network on the target. The
            plan's notes give the latency of the resulting network, measured once more.
        keep: layers that keep all their channels, as patterns over paths, such as ["stem.*"], beside the budget's.
        multiple_of: only without a budget, which has its own: as many zero groups stay as make each layer's number of
            channels a multiple of this.

    Raises:
        BudgetError: nothing in this network can be removed, or the budget cannot be met; names the smallest cost.
        RecipeError: a pattern of `keep` matches no layer; names similar layers.
    """
    _check_arguments(model, groups, budget, multiple_of)
    if budget is None:
        zeros = _zeros(model, groups) & ~kept_groups(groups, keep)
        return removal(groups, _to_multiples(groups, spare_layers(groups, zeros), multiple_of))
    groups = budget.candidates(groups)
    refuse_if_rigid(groups)
    budget = dataclasses.replace(budget, keep=(*budget.keep, *patterns_of(keep)))
    bounds = budget.absolute(groups)
    values = checked_importance(relative_norms(model, groups) if importance is None else importance, len(groups))
    floor, multiple_of = floors(groups, budget), budget.multiple_of
    if not budget.is_timed:
        return removal(groups, selection(budget.solver)(groups, values, bounds, floor, multiple_of))
    if isinstance(meter, ModellingMeter):
        return reached(model, groups, budget, values, floor, meter)
    return _within_milliseconds(model, groups, budget, values, floor, bounds, checked_meter(meter, budget.target))


def _within_milliseconds(
    model: nn.Module,
    groups: ChannelGroups,
    budget: Budget,
    importance: Tensor,
    floor: Mapping[str, int],
    bounds: Mapping[str, float],
    timed: Meter,
) -> Plan:
    """Return the plan of the largest network within the latency, with a note of its latency when measured once more.

    A meter that does not interleave networks may have measured them under different loads of the machine. If the
    network turns out too slow when measured again, search once more against the new measurement.
    """
    limit_ms, notes = budget.limit_ms(lambda: timed(model)), list[str]()
    plan = Plan()
    for number in range(SEARCHES):
        search = LatencySearch(
            model=model,
            groups=groups,
            importance=importance,
            meter=timed,
            limit_ms=limit_ms,
            floor=floor,
            multiple_of=budget.multiple_of,
            bounds=bounds,
            solver=budget.solver,
        )
        try:
            plan = search.largest().plan
        except BudgetError:
            if not number:
                raise
            break  # the machine is so busy by now that no network is fast enough
        reached, limit_ms = timed(apply(plan, model)), budget.limit_ms(lambda: timed(model))
        notes = [_reached(budget, reached, limit_ms)]
        if reached <= limit_ms:
            break
    return dataclasses.replace(plan, notes=(*plan.notes, *notes))


def _reached(budget: Budget, reached_ms: float, limit_ms: float) -> str:
    """Return a note of a network's latency when measured once more."""
    text = f"measured once more, it takes {reached_ms:.4g} ms"
    if budget.latency is not None and budget.latency < 1:
        text += f", {reached_ms * budget.latency / limit_ms:.1%} of the network's {limit_ms / budget.latency:.4g} ms"
    if limit_ms < math.inf:
        text += f"; {limit_ms:.4g} ms are allowed"
    if reached_ms > limit_ms:
        text += (
            ". That is too much: measurements of this meter differ by more than the budget's margin, so measure on a "
            "quiet machine, or with prunus.deploy.LatencyMeter, which times networks in turn"
        )
    return text


def _zeros(model: nn.Module, groups: ChannelGroups) -> Tensor:
    """Return the groups that are zero, or off: bool [num_groups]."""
    zero = zero_groups(model, groups)  # raises unless the groups are the model's
    if groups.off is not None:
        zero |= groups.off(model, zero)
    if not bool(zero.any()):
        refuse_if_rigid(groups)
    return zero


def _to_multiples(groups: ChannelGroups, chosen: Tensor, multiple_of: int) -> Tensor:
    """Return `chosen` without the last groups of each layer, so that each layer keeps a multiple of `multiple_of`.

    It is the smallest that holds the rest; a layer too small for it keeps all.
    """
    left = chosen.clone()
    for layer in torch.unique(groups.layers[chosen]).tolist():
        members = groups.layers == layer
        going = (members & chosen).nonzero().flatten()
        num = int(members.sum())
        width = -(-(num - going.numel()) // multiple_of) * multiple_of
        left[going[max(0, num - width) :]] = False
    return left


def _check_arguments(model: nn.Module, groups: ChannelGroups, budget: Budget | None, multiple_of: int) -> None:
    if not isinstance(model, nn.Module) or not isinstance(groups, ChannelGroups):
        raise BudgetError(
            f"select takes the model and the groups that trace gave, not a {type(model).__name__} and a "
            f"{type(groups).__name__}"
        )
    if not isinstance(budget, Budget | None):
        raise BudgetError(f"select takes a Budget, as in budget=prunus.Budget(macs=0.4), not {budget!r:.80}")
    if type(multiple_of) is not int or not 1 <= multiple_of < 2**31:
        raise BudgetError(f"multiple_of is a whole number from 1, not {multiple_of!r:.80}")
    if budget is not None and multiple_of != 1:
        raise BudgetError(f"with a budget, multiple_of belongs to it: prunus.Budget(..., multiple_of={multiple_of})")


def refuse_if_rigid(groups: ChannelGroups) -> None:
    """Raise `BudgetError` with the reasons where no group can be removed exactly."""
    if not bool(groups.exact.any()):
        counted: dict[str, int] = {}
        for texts in groups.reasons.values():
            counted[texts[0]] = counted.get(texts[0], 0) + 1
        reasons = sorted(counted.items(), key=lambda item: -item[1])[:5]
        listed = "; ".join(f"{number} groups: {reason}" for reason, number in reasons) or "it has no channel groups"
        raise BudgetError(f"nothing in this network can be removed exactly: {listed}")


def relative_norms(model: nn.Module, groups: ChannelGroups) -> Tensor:
    """Return each group's norm divided by its layer's mean norm, [num_groups], so that layers are comparable."""
    norms = GroupSlices.of(model, groups).norms().detach().cpu().double()
    index = groups.layers % (len(groups.layer_names) + 1)
    total = torch.zeros(len(groups.layer_names) + 1, dtype=torch.float64).index_add_(0, index, norms)
    count = torch.zeros_like(total).index_add_(0, index, torch.ones_like(norms))
    return norms / (total / count.clamp(min=1))[index].clamp(min=1e-30)


def checked_importance(importance: Tensor, num_groups: int) -> Tensor:
    """Return the importance of groups as float64 on the CPU.

    Raises:
        BudgetError: the importance is not one finite number per group.
    """
    values = importance.detach().cpu().double()
    if values.shape != (num_groups,) or not bool(values.isfinite().all()):
        raise BudgetError(
            f"importance has shape {list(values.shape)}; one finite number per group is needed, [{num_groups}]. Where "
            "weights are not finite, their norms are not either"
        )
    return values
