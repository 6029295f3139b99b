"""Exact zeros: find the channel groups that consist of zeros alone, and set groups to zero."""

import torch
from torch import Tensor, nn

from prunus.graph import ChannelGroups
from prunus.penalties.slices import producers


@torch.no_grad()
def zero_groups(model: nn.Module, groups: ChannelGroups) -> Tensor:
    """Return the exactly removable groups whose producing tensors are all zero there: bool [num_groups].

    Raises:
        EditError: the groups were traced on another model, or before an edit.
    """
    alive = torch.zeros(len(groups) + 1, dtype=torch.int64)  # number of slots that produce a nonzero value
    for slot, tensor in producers(model, groups):
        values = tensor.detach().abs() if tensor.is_complex() else tensor.detach()
        others = [d for d in range(values.dim()) if d != slot.dim]
        if others and values.numel():  # much faster than `any`; NaN differs from zero too
            rows = (values.amax(others) != 0) | (values.amin(others) != 0)
        else:
            rows = (values != 0).any(dim=others) if others else values != 0
        alive.index_add_(0, slot.groups % alive.numel(), rows.cpu().to(alive.dtype))
    return (alive[:-1] == 0) & groups.exact


@torch.no_grad()
def zero_(model: nn.Module, groups: ChannelGroups, chosen: Tensor) -> None:
    """Set the groups `chosen`, bool [num_groups], to zero in every tensor that produces their channels, in place."""
    padded = torch.cat([chosen, chosen.new_zeros(1)])
    for slot, tensor in producers(model, groups):
        index = padded[slot.groups].nonzero().flatten()
        if index.numel():
            tensor.index_fill_(slot.dim, index.to(tensor.device), 0)
