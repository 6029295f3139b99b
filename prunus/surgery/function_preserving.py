"""Factors that compute a given kernel, so that an expanded layer starts from the function that it had.

The kernel is written as a chain of maps: in front, maps that only copy (1 x 1) or shift by 0 or 2 along each dimension
(3 x 3); behind, maps that only add up; in the middle, one map with the kernel's values. Shifts {0, 2, ..., 2 a} in
front of and {0, 2, ..., 2 b} behind a 3 x 3 map reach every tap of a kernel of size 2 (a + b) + 3, so any kernel can be
written in this way with (j + 1)^2 channels per channel after j shifts. Each space between the maps is embedded in the
wider space of the expanded layer by a matrix of orthonormal columns; outside of it the fresh weights are kept.
"""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from types import EllipsisType

import torch
from torch import Tensor

from prunus.errors import EditError

_NUM_MIRRORS = 2


def preserving_weights(weight: Tensor, fresh: Sequence[Tensor], numbers: torch.Generator, place: str) -> list[Tensor]:
    """Return weights of the shapes of `fresh` whose product is `weight`.

    Args:
        weight: [groups, out / groups, in / groups, *kernel].
        fresh: the factors' fresh weights: 1 x 1, k x k, 1 x 1, or all 3 x 3; two or more.
        numbers: the random generator of the orthonormal matrices.
        place: for messages.

    Raises:
        EditError: the factors are too narrow to compute every kernel of this shape.
    """
    widths = [factor.shape[1] for factor in fresh[:-1]]
    shifting = weight.shape[3:] != fresh[len(fresh) // 2].shape[3:]
    front, behind = _split(weight.shape[1:], widths, shifting, place)
    if weight.is_meta:
        return list(fresh)
    maps = [
        *_front(weight, front, shifting),
        _middle(weight, front, behind, shifting),
        *_behind(weight, behind, shifting),
    ]
    sizes = [(factor.shape[1], given.shape[1]) for factor, given in zip(fresh[:-1], maps[:-1], strict=True)]
    inner = [_frame(weight, rows, columns, numbers) for rows, columns in sizes]
    result = []
    for number, (given, drawn) in enumerate(zip(maps, fresh, strict=True)):
        noise = drawn.to(weight.dtype)
        before = inner[number - 1] if number else None
        after = inner[number] if number < len(inner) else None
        # The fresh weights are kept where they have no effect: up to the middle map no input lies outside the embedded
        # space, and from the middle map on no output outside of it is read. On the rest they are replaced by the map.
        read, arriving = (after if number >= front else None), (before if number <= front else None)
        seen = _narrowed(read, _swapped(_narrowed(arriving, _swapped(noise))))
        wanted = _widened(after if number < front else None, given)
        wanted = _swapped(_widened(before if number > front else None, _swapped(wanted)))
        change = _swapped(_widened(arriving, _swapped(_widened(read, wanted - seen))))
        result.append(noise.add_(change))
    return result


@dataclasses.dataclass(frozen=True, eq=False)
class _Frame:
    """A matrix Q = (I - 2 V V^T) S [groups, rows, columns] with orthonormal columns: S copies with signs, V reflects.

    Products with it cost as much as a copy; products with a dense matrix would dominate for wide layers.
    """

    columns: int
    scale: Tensor  # of S, [groups, rows]
    axes: Tensor  # V, orthonormal columns, [groups, rows, 1 or 2]

    def widened(self, values: Tensor) -> Tensor:
        """Return Q x, [groups, columns, ...] -> [groups, rows, ...]."""
        flat = values.reshape(*values.shape[:2], -1)
        result = flat[:, self._index()].mul_(self.scale[..., None])
        result.baddbmm_(self.axes, self._collected(self.axes).mT @ flat, alpha=-2)
        return result.reshape(*result.shape[:2], *values.shape[2:])

    def narrowed(self, values: Tensor) -> Tensor:
        """Return Q^T y, [groups, rows, ...] -> [groups, columns, ...]."""
        flat = values.reshape(*values.shape[:2], -1)
        result = self._collected(flat)
        result.baddbmm_(self._collected(self.axes), self.axes.mT @ flat, alpha=-2)
        return result.reshape(*result.shape[:2], *values.shape[2:])

    def _collected(self, flat: Tensor) -> Tensor:
        """Return S^T y, [groups, rows, n] -> [groups, columns, n]."""
        sums = flat.new_zeros(flat.shape[0], self.columns, flat.shape[2])
        return sums.index_add_(1, self._index(), flat * self.scale[..., None])

    def _index(self) -> Tensor:
        return torch.arange(self.scale.shape[1], device="cpu") % self.columns


def _frame(weight: Tensor, rows: int, columns: int, numbers: torch.Generator) -> _Frame:
    """Draw a frame for all groups of `weight`, in its precision."""
    groups = weight.shape[0]
    index = torch.arange(rows, device="cpu") % columns
    copies = torch.bincount(index, minlength=columns)[index]
    signs = torch.randint(0, 2, (groups, rows), generator=numbers, device="cpu") * 2.0 - 1
    drawn = torch.randn(groups, rows, _NUM_MIRRORS, generator=numbers, dtype=torch.float64, device="cpu")
    scale, axes = signs.double() / copies.double().sqrt(), torch.linalg.qr(drawn).Q
    return _Frame(columns, scale.to(weight.dtype), axes.to(weight.dtype))


def _widened(frame: _Frame | None, values: Tensor) -> Tensor:
    """Return Q x; None stands for the identity."""
    return values if frame is None else frame.widened(values)


def _narrowed(frame: _Frame | None, values: Tensor) -> Tensor:
    """Return Q^T y; None stands for the identity."""
    return values if frame is None else frame.narrowed(values)


def _swapped(weight: Tensor) -> Tensor:
    """Swap the dimensions of outputs and inputs."""
    return weight.transpose(1, 2)


def holds(shape: Sequence[int], widths: Sequence[int]) -> bool:
    """Return whether 3 x 3 factors through `widths` can compute every kernel [out / groups, in / groups, *kernel]."""
    return any(_fits(needed, widths) for _, needed in _ways(shape, len(widths), shifting=True))


def _split(shape: Sequence[int], widths: Sequence[int], shifting: bool, place: str) -> tuple[int, int]:
    """Return the number of factors in front of the middle map, and behind it."""
    ways = _ways(shape, len(widths), shifting=shifting)
    for front, needed in ways:
        if _fits(needed, widths):
            return front, len(widths) - front
    raise EditError(
        f"{place}: through widths {list(widths)} not every kernel of this shape can be computed; at "
        f"least {' or '.join(str(needed) for _, needed in ways)} are needed: raise the rate, take another kind, or "
        "start fresh"
    )


def _fits(needed: Sequence[int], widths: Sequence[int]) -> bool:
    return all(width >= need for width, need in zip(widths, needed, strict=True))


def _ways(shape: Sequence[int], number: int, *, shifting: bool) -> list[tuple[int, list[int]]]:
    """Return (factors in front, widths needed) of each way to write a kernel, the most even way first."""
    outer, inner, *kernel = shape
    if not shifting:
        return [(1, [inner, outer])]
    rank, ways = len(kernel), []
    for front in sorted(range(number + 1), key=lambda front: abs(2 * front - number)):
        ahead = [inner * (j + 1) ** rank for j in range(1, front + 1)]
        after = [outer * (j + 1) ** rank for j in range(number - front, 0, -1)]
        ways.append((front, [*ahead, *after]))
    return ways


def _front(weight: Tensor, number: int, shifting: bool) -> list[Tensor]:
    """Return maps whose outputs are the input, shifted by every combination of 0, 2, ..., 2 j."""
    channels, rank = weight.shape[2], weight.dim() - 3
    return [_shift(weight, channels, rank, j, shifting) for j in range(1, number + 1)]


def _behind(weight: Tensor, number: int, shifting: bool) -> list[Tensor]:
    """Return maps that add up their inputs, shifted by every combination of 0, 2, ..., 2 j."""
    channels, rank = weight.shape[1], weight.dim() - 3
    return [_shift(weight, channels, rank, j, shifting).transpose(1, 2) for j in range(number, 0, -1)]


def _shift(weight: Tensor, channels: int, rank: int, j: int, shifting: bool) -> Tensor:
    groups, identity = weight.shape[0], torch.eye(channels, dtype=weight.dtype, device="cpu")
    if not shifting:
        return identity.expand(groups, -1, -1).reshape(groups, channels, channels, *[1] * rank)
    result = weight.new_zeros(groups, (j + 1) ** rank, channels, j**rank, channels, *[3] * rank)
    for row, offset in enumerate(itertools.product(range(j + 1), repeat=rank)):
        earlier = [min(size, j - 1) for size in offset]
        column = sum(size * j**power for power, size in enumerate(reversed(earlier)))
        tap = [2 * (size - before) for size, before in zip(offset, earlier, strict=True)]
        result[:, row, :, column, :, *tap] = identity
    return result.flatten(3, 4).flatten(1, 2)


def _middle(weight: Tensor, front: int, behind: int, shifting: bool) -> Tensor:
    """Return the middle map, with each tap of the kernel shared equally among the combinations of shifts to it."""
    if not shifting:
        return weight
    groups, outer, inner, *kernel = weight.shape
    rank = len(kernel)
    sizes = ((behind + 1) ** rank, (front + 1) ** rank)
    result = weight.new_zeros(groups, sizes[0], outer, sizes[1], inner, *[3] * rank)
    ways = _num_ways(kernel[0], front, behind)
    share = weight / math.prod(ways.reshape(*[-1 if d == dim else 1 for d in range(rank)]) for dim in range(rank))
    spots = itertools.product(*(range(n) for n in (behind + 1, front + 1) for _ in range(rank)))
    for place, spot in enumerate(spots):
        after, before = spot[:rank], spot[rank:]
        starts = [2 * (a + b) for a, b in zip(after, before, strict=True)]
        window: tuple[EllipsisType | slice, ...] = (..., *(slice(start, start + 3) for start in starts))
        result[:, place // sizes[1], :, place % sizes[1]] = share[window]
    return result.flatten(3, 4).flatten(1, 2)


def _num_ways(size: int, front: int, behind: int) -> Tensor:
    ways = torch.zeros(size, dtype=torch.float64, device="cpu")
    for a, b, tap in itertools.product(range(front + 1), range(behind + 1), range(3)):
        ways[2 * (a + b) + tap] += 1
    return ways
