"""`prunus.check_removal`: the law, on anybody's model."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from prunus.budget.select import removal, select, spare_layers
from prunus.graph import ChannelGroups, Role, trace
from prunus.graph.trace import Inputs, modes_kept
from prunus.records import RemovalRecord
from prunus.surgery import apply


def check_removal(model: nn.Module, inputs: Inputs, fraction: float = 0.5, seed: int = 0) -> RemovalRecord:
    """Zero a random `fraction` of the exactly removable groups, remove them, and compare the outputs.

    The model is not changed. Outputs are compared in the model's own precision and in evaluation mode; the predicted
    MACs and parameters are those of the record, the parameters counted on the smaller network.

    Raises:
        TraceError: the model cannot be read. A refused group raises nothing: it is counted.
    """
    args = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    groups = trace(model, args)
    chosen = spare_layers(groups, _random_groups(groups, fraction, seed))
    zeroed = copy.deepcopy(model)
    zero_(zeroed, groups, chosen)
    plan = select(zeroed, groups) if bool(groups.exact.any()) else removal(groups, torch.zeros_like(groups.exact))
    small = apply(plan, zeroed)
    alive = ~chosen
    absolute, relative = difference(zeroed, small, args)
    return RemovalRecord(
        max_rel_diff=relative,
        max_abs_diff=absolute,
        removed=int(chosen.sum()),
        refused=int(groups.refused.sum()),
        params_before=groups.params(),
        params_after=sum(parameter.numel() for parameter in small.parameters()),
        macs_before=groups.macs(),
        macs_after=groups.macs(alive),
    )


def _random_groups(groups: ChannelGroups, fraction: float, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    candidates = groups.exact.nonzero().flatten()
    order = candidates[torch.randperm(candidates.numel(), generator=generator)]
    chosen = torch.zeros(len(groups), dtype=torch.bool)
    chosen[order[: round(fraction * candidates.numel())]] = True
    return chosen


@torch.no_grad()
def zero_(model: nn.Module, groups: ChannelGroups, chosen: Tensor) -> None:
    """Set all that makes the channels of the groups `chosen` to zero, in place."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    padded = torch.cat([chosen, chosen.new_zeros(1)])
    for slot in groups.slots:
        index = padded[slot.groups].nonzero().flatten()
        if slot.role is Role.PRODUCER and index.numel():
            tensors[slot.path].index_fill_(slot.dim, index.to(tensors[slot.path].device), 0)


@torch.no_grad()
def difference(
    first: nn.Module, second: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None
) -> tuple[float, float]:
    """Return the largest absolute difference of two networks' outputs in evaluation mode, and the same relative to
    the largest output."""
    with modes_kept(first), modes_kept(second):
        pairs = zip(
            _tensors(first.eval()(*args, **(kwargs or {}))),
            _tensors(second.eval()(*args, **(kwargs or {}))),
            strict=True,
        )
        differences, sizes = [0.0], [0.0]
        for a, b in pairs:
            differences.append(float((a.double() - b.double()).abs().max()))
            sizes.append(float(a.double().abs().max()))
    absolute = max(differences)
    return absolute, absolute / max(max(sizes), 1e-30)


def _tensors(output: Any) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output] if output.is_floating_point() else []
    if isinstance(output, Mapping):
        output = list(output.values())
    if isinstance(output, list | tuple):
        return [tensor for item in output for tensor in _tensors(item)]
    return []
