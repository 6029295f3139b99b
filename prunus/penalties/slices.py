"""The parameters of channel groups, slice by slice: norms, sums and scalings over all groups at once."""

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor, nn

from prunus.errors import EditError
from prunus.graph import ChannelGroups, Role


@dataclasses.dataclass(frozen=True, eq=False)
class Slice:
    """One producing dimension of one parameter, with the group of each index (-1: none)."""

    parameter: nn.Parameter
    dim: int
    groups: Tensor


@dataclasses.dataclass(frozen=True, eq=False)
class GroupSlices:
    """All slices of a model's parameters that make the channels of its groups."""

    slices: tuple[Slice, ...]
    num_groups: int

    @classmethod
    def of(cls, model: nn.Module, groups: ChannelGroups) -> "GroupSlices":
        """Find the producing slices of `groups` in `model`.

        Raises:
            EditError: the groups were traced on another model, or before an edit.
        """
        parameters = dict(model.named_parameters())
        slices = []
        for slot in groups.slots:
            if slot.role is not Role.PRODUCER or slot.path not in parameters:
                continue
            parameter = parameters[slot.path]
            if parameter.shape[slot.dim] != slot.groups.numel():
                raise EditError(
                    f"{slot.path}, dimension {slot.dim}: the groups were traced at size {slot.groups.numel()}, "
                    f"the model has {parameter.shape[slot.dim]}; trace again after an edit"
                )
            slices.append(Slice(parameter, slot.dim, slot.groups.to(parameter.device)))
        return cls(tuple(slices), len(groups))

    def sums(self, function: Callable[[nn.Parameter], Tensor]) -> Tensor:
        """Return the sum of `function(parameter)`, of the parameter's shape, over each group: [num_groups]."""
        device = self.slices[0].parameter.device if self.slices else torch.device("cpu")
        total = torch.zeros(self.num_groups + 1, device=device)
        cache: dict[int, Tensor] = {}
        for one in self.slices:
            values = cache.get(id(one.parameter))
            if values is None:
                values = cache[id(one.parameter)] = function(one.parameter).float()
            others = [d for d in range(values.dim()) if d != one.dim]
            rows = values.sum(others) if others else values
            total = total.index_add(0, one.groups % (self.num_groups + 1), rows)
        return total[:-1]

    def norms(self) -> Tensor:
        """Return the Euclidean norm of each group's producing parameters: [num_groups]."""
        return self.sums(torch.square).sqrt()

    def sizes(self) -> Tensor:
        """Return the number of each group's producing parameters: [num_groups]."""
        return self.sums(lambda parameter: torch.ones_like(parameter, requires_grad=False))

    @torch.no_grad()
    def scale_(self, factors: Tensor, function: Callable[[nn.Parameter], Tensor | None] = lambda p: p.data) -> None:
        """Multiply each group's slices of `function(parameter)` (default: the parameter) in place by `factors`."""
        padded = torch.cat([factors, factors.new_ones(1)])
        touched = padded != 1
        for one in self.slices:
            index = one.groups % (self.num_groups + 1)
            target = function(one.parameter)
            if target is not None and bool(touched[index].any()):
                shape = [1] * target.dim()
                shape[one.dim] = -1
                target.mul_(padded[index].to(target.dtype).reshape(shape))
