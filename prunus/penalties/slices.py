"""The parameters that produce channel groups: norms, sums and scalings over all groups at once."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import cached_property

import torch
from torch import Tensor, nn

from prunus.errors import EditError
from prunus.graph import ChannelGroups, Role, Slot
from prunus.modules.tensors import named_tensors


@dataclasses.dataclass(frozen=True, eq=False)
class Slice:
    """One producing dimension of one tensor, with the group of each index (-1: none)."""

    parameter: Tensor
    dim: int
    groups: Tensor


def producers(model: nn.Module, groups: ChannelGroups) -> list[tuple[Slot, Tensor]]:
    """Return the slots that produce channels, each with its parameter or buffer of `model`.

    Raises:
        EditError: the groups were traced on another model, or before an edit.
    """
    tensors = named_tensors(model)
    found = []
    for slot in groups.slots:
        tensor = tensors.get(slot.path)
        if tensor is None:
            raise EditError(
                f"{slot.path}: the groups were traced on a model with this tensor; {type(model).__name__} does not "
                "have it"
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
    """All slices of a model that produce the channels of its groups.

    Attributes:
        slices: slices of parameters; norms and scalings are over these.
        buffers: slices of running means that must be zero for an activation to be zero (BatchNorm without affine).
        num_groups: the number of groups.
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

    @cached_property
    def parameters(self) -> list[Tensor]:
        """The parameters, each once."""
        return list({id(one.parameter): one.parameter for one in self.slices}.values())

    def sums(self, function: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the sum of `function(parameter)`, of the parameter's shape, over each group: [num_groups].

        Sums are in float32, or in float64 if any parameter is.
        """
        cache: dict[int, Tensor] = {}

        def once(one: Slice) -> Tensor:
            if id(one.parameter) not in cache:
                cache[id(one.parameter)] = function(one.parameter).to(self.dtype)
            return cache[id(one.parameter)]

        return self.slice_sums(once)

    @cached_property
    def dtype(self) -> torch.dtype:
        """The type in which sums are taken."""
        double = any(one.parameter.dtype == torch.float64 for one in self.slices)
        return torch.float64 if double else torch.float32

    def slice_sums(self, function: Callable[[Slice], Tensor]) -> Tensor:
        """Return the sum of `function(slice)`, of its parameter's shape, over each group: [num_groups]."""
        if not self.slices:
            return torch.zeros(self.num_groups, dtype=self.dtype)
        rows = torch.cat([_rows(function(one), one.dim).to(self.dtype) for one in self.slices])
        return rows.new_zeros(self.num_groups + 1).index_add(0, self._index, rows)[:-1]

    def spread(self, values: Tensor, otherwise: float) -> Sequence[Tensor]:
        """Return for each slice `values`, [num_groups], laid out along its dimension to broadcast over the parameter.

        `otherwise` fills the indices that belong to no group.
        """
        return _spread(self.slices, self._index, values, otherwise)

    @cached_property
    def _index(self) -> Tensor:
        return _joined(self.slices, self.num_groups)

    @cached_property
    def _buffer_index(self) -> Tensor:
        return _joined(self.buffers, self.num_groups)

    def norms(self) -> Tensor:
        """Return the Euclidean norm of each group's producing parameters: [num_groups]."""
        return self.sums(lambda p: p.abs().square() if p.is_complex() else p.square()).sqrt()

    def sizes(self) -> Tensor:
        """Return the number of producing parameters of each group: [num_groups]."""
        return self.sums(lambda parameter: torch.ones_like(parameter, requires_grad=False))

    @torch.no_grad()
    def scale_(self, factors: Tensor, function: Callable[[Tensor], Tensor | None] = lambda p: p.data) -> None:
        """Multiply each group's slices of `function(parameter)` (default: the parameter) by `factors`, in place."""
        for one, spread in zip(self.slices, self.spread(factors, 1.0), strict=True):
            target = function(one.parameter)
            if target is not None:
                target.mul_(spread.to(target.dtype))

    @torch.no_grad()
    def scale_buffers_(self, factors: Tensor) -> None:
        """Multiply each group's slices of the buffers by `factors`, [num_groups], in place."""
        if self.buffers:
            for one, spread in zip(self.buffers, _spread(self.buffers, self._buffer_index, factors, 1.0), strict=True):
                one.parameter.mul_(spread.to(one.parameter.dtype))

    @torch.no_grad()
    def add_share_(self, shares: Tensor, function: Callable[[Tensor], Tensor | None]) -> None:
        """Add `shares`, [num_groups], times each group's parameters to `function(parameter)`, in place."""
        for one, spread in zip(self.slices, self.spread(shares, 0.0), strict=True):
            target = function(one.parameter)
            if target is not None:
                target.addcmul_(one.parameter, spread.to(target.dtype))


def _joined(slices: Sequence[Slice], num_groups: int) -> Tensor:
    """Return the groups of all slices' indices, concatenated; `num_groups` stands for no group.

    One gather or scatter then serves a whole model: with hundreds of slices, the calls dominate the time.
    """
    return torch.cat([one.groups for one in slices] or [torch.zeros(0, dtype=torch.int64)]) % (num_groups + 1)


def _rows(values: Tensor, dim: int) -> Tensor:
    """Return the sums over all dimensions but one."""
    others = [d for d in range(values.dim()) if d != dim]
    return values.sum(others) if others else values


def _spread(slices: Sequence[Slice], index: Tensor, values: Tensor, otherwise: float) -> Sequence[Tensor]:
    padded = torch.cat([values, values.new_full((1,), otherwise)])
    laid = torch.split(padded[index], [len(one.groups) for one in slices])
    shapes = ([-1 if d == one.dim else 1 for d in range(one.parameter.dim())] for one in slices)
    return [part.view(shape) for part, shape in zip(laid, shapes, strict=True)]
