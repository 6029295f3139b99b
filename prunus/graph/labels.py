"""Labels of tensors: which dimensions of a tensor hold channels, and which channels."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from prunus.graph.ids import NONE


@dataclasses.dataclass(frozen=True)
class Axis:
    """The channels along one dimension of a tensor.

    Attributes:
        ids: channel id of each index, shape [size]; `NONE` where the index belongs to no channel.
        source: shape [size]; 0 where the elements at an index are zero once its channel's producers are zero, else the
            number of the operation that made them non-zero (`sigmoid(0)` is 0.5).
    """

    ids: Tensor
    source: Tensor

    @classmethod
    def of(cls, ids: Tensor) -> "Axis":
        """Return the axis of `ids`, whose elements are zero when their channels are."""
        return cls(ids, torch.zeros_like(ids))

    def mapped(self, function: Callable[[Tensor], Tensor]) -> "Axis":
        """Return the axis with `function`, which picks or repeats indices, applied to both vectors."""
        return Axis(function(self.ids), function(self.source))

    def blocks(self, size: int) -> "Axis":
        """Return one index per `size` consecutive ones, which must be one channel: zero where all of them are."""
        return Axis(self.ids[::size], self.source.reshape(-1, size).amax(1))


@dataclasses.dataclass(frozen=True)
class Label:
    """A tensor of the network as the tracer sees it.

    Attributes:
        shape: the tensor's shape.
        axes: the channels along each dimension that holds any. Other dimensions hold data (batch, positions).
        data: the values, where they are constants that steer data movement (an index table). Large ones have a
            stride of zero along each dimension in which they do not change.
        dtype: the tensor's type, filled in by the walk.
        alike: dimensions along which the unknown values do not change, since one value was repeated over them.
    """

    shape: tuple[int, ...]
    axes: dict[int, Axis] = dataclasses.field(default_factory=dict)
    data: Tensor | None = None
    dtype: torch.dtype = torch.float32
    alike: frozenset[int] = frozenset()

    @classmethod
    def constant(cls, values: Tensor) -> "Label":
        """Return the label of known values."""
        return cls(tuple(values.shape), data=values, dtype=values.dtype)

    @property
    def is_zero(self) -> bool:
        """Whether all values are known to be zero."""
        return self.data is not None and not bool(self.data.any())

    @property
    def single(self) -> Tensor | None:
        """The value that all elements are known to have, shape []; None where they differ or are unknown."""
        if self.data is None or not self.data.numel() or not all(map(self.uniform, range(len(self.shape)))):
            return None
        return self.data[(0,) * len(self.shape)]

    @property
    def last(self) -> int:
        """The number of the last dimension."""
        return len(self.shape) - 1

    def before(self, size: int) -> dict[int, Axis]:
        """Return the axes of all but the last `size` dimensions."""
        return {dim: axis for dim, axis in self.axes.items() if dim < len(self.shape) - size}

    def behind(self, dim: int) -> Axis | None:
        """Return the axis at the negative dimension `dim`: -1 is the last."""
        return self.axes.get(len(self.shape) + dim)

    def source_along(self, dim: int, number: int) -> Tensor:
        """Return the `source` of the axis at `dim`, filled with `number` where the dimension holds no channels."""
        axis = self.axes.get(dim)
        return torch.full((self.shape[dim],), number) if axis is None else axis.source

    def uniform(self, dim: int) -> bool:
        """Return whether the values are known to be the same along `dim`."""
        if dim in self.alike:
            return True
        if self.data is None or self.data.shape[dim] < 2 or self.data.stride(dim) == 0:
            return self.data is not None  # known values, of which no two differ
        return torch.equal(self.data, self.data.narrow(dim, 0, 1).expand_as(self.data))

    def expanded(self, dim: int, field: str, shape: Sequence[int] | None = None) -> Tensor:
        """Return `ids` or `source` of the axis at `dim` as a tensor of the full shape (a view, no memory).

        Where dimensions other than `dim` do not matter, `shape` gives them smaller sizes.
        """
        shape = self.shape if shape is None else shape
        if dim not in self.axes:
            return torch.zeros((), dtype=torch.long).expand(shape)
        vector: Tensor = getattr(self.axes[dim], field)
        ones = [1] * len(shape)
        ones[dim] = self.shape[dim]
        return vector.reshape(ones).expand(shape)


Labels: TypeAlias = Label | list[Label]  # an operator's outputs


def spread(operands: Sequence[Label], shape: tuple[int, ...]) -> frozenset[int]:
    """Return the dimensions of `shape` along which no operand, broadcast to it, changes."""

    def changes(each: Label, dim: int) -> bool:  # `dim` is negative
        return len(each.shape) >= -dim and each.shape[dim] > 1 and not each.uniform(len(each.shape) + dim)

    rank = len(shape)
    return frozenset(d for d in range(rank) if shape[d] > 1 and not any(changes(x, d - rank) for x in operands))


def num_distinct(labels: Tensor, dim: int) -> int:
    """Count the distinct ids other than `NONE` along `dim`, at index 0 of all other dimensions."""
    line = labels.movedim(dim, 0).reshape(labels.shape[dim], -1)[:, 0]
    return int((torch.unique(line) != NONE).sum())
