"""The parameters of channel groups, slice by slice: norms, sums and scalings over all groups at once."""

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor, nn

from prunus.errors import EditError
from prunus.graph import ChannelGroups, Role, Slot


@dataclasses.dataclass(frozen=True, eq=False)
class Slice:
    """One producing dimension of one tensor, with the group of each index (-1: none)."""

    parameter: Tensor
    dim: int
    groups: Tensor


def producers(model: nn.Module, groups: ChannelGroups) -> list[tuple[Slot, Tensor]]:
    """Return the slots that make channels, each with its parameter or buffer of `model`.

    Raises:
        EditError: the groups were traced on another model, or before an edit.
    """
    tensors: dict[str, Tensor] = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    found = []
    for slot in groups.slots:
        tensor = tensors.get(slot.path)
        if tensor is None:
            raise EditError(
                f"{slot.path}: the groups were traced on a model that has it, {type(model).__name__} has not"
            )
        if tensor.dim() <= slot.dim or tensor.shape[slot.dim] != slot.groups.numel():
            raise EditError(
                f"{slot.path}, dimension {slot.dim}: the groups were traced at size {slot.groups.numel()}, "
                f"the model has shape {list(tensor.shape)}; trace again after an edit"
            )
        if slot.role is Role.PRODUCER:
            found.append((slot, tensor))
    return found


@dataclasses.dataclass(frozen=True, eq=False)
class GroupSlices:
    """All slices of a model that make the channels of its groups.

    Attributes:
        slices: of parameters; norms and scalings are over these.
        buffers: of running means that an activation is only zero with (BatchNorm without affine).
        num_groups: how many groups there are.
    """

    slices: tuple[Slice, ...]
    buffers: tuple[Slice, ...]
    num_groups: int

    @classmethod
    def of(cls, model: nn.Module, groups: ChannelGroups) -> "GroupSlices":
        """Find the producing slices of `groups` in `model`.

        Raises:
            EditError: the groups were traced on another model, or before an edit.
        """
        parameters, buffers = list[Slice](), list[Slice]()
        for slot, tensor in producers(model, groups):
            kind = parameters if isinstance(tensor, nn.Parameter) else buffers
            kind.append(Slice(tensor, slot.dim, slot.groups.to(tensor.device)))
        return cls(tuple(parameters), tuple(buffers), len(groups))

    def sums(self, function: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the sum of `function(parameter)`, of the parameter's shape, over each group: [num_groups].

        In float32, or float64 where a parameter has it.
        """
        device = self.slices[0].parameter.device if self.slices else torch.device("cpu")
        double = any(one.parameter.dtype == torch.float64 for one in self.slices)
        total = torch.zeros(self.num_groups + 1, device=device, dtype=torch.float64 if double else torch.float32)
        cache: dict[int, Tensor] = {}
        for one in self.slices:
            values = cache.get(id(one.parameter))
            if values is None:
                values = cache[id(one.parameter)] = function(one.parameter).to(total.dtype)
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
    def scale_(self, factors: Tensor, function: Callable[[Tensor], Tensor | None] = lambda p: p.data) -> None:
        """Multiply each group's slices of `function(parameter)` (default: the parameter) in place by `factors`."""
        for one in self.slices:
            _scale(one, function(one.parameter), factors)

    @torch.no_grad()
    def scale_buffers_(self, factors: Tensor) -> None:
        """Multiply each group's slices of the buffers in place by `factors`, [num_groups]."""
        for one in self.buffers:
            _scale(one, one.parameter, factors)


def _scale(one: Slice, target: Tensor | None, factors: Tensor) -> None:
    padded = torch.cat([factors, factors.new_ones(1)])[one.groups]  # the index -1 is the last
    if target is not None and bool((padded != 1).any()):
        shape = [1] * target.dim()
        shape[one.dim] = -1
        target.mul_(padded.to(target.dtype).reshape(shape))
