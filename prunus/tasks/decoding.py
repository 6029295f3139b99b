"""A detector with decoded output, and the comparison of the detections of two runs."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from prunus.boxes import overlaps

SAME = 0.99  # IoU from which two boxes count as the same
CLOSE = 1e-3  # largest difference of two scores that count as the same


class Decoding(nn.Module):
    """Images [N, 3, H, W] to detections [N, K, 6] (`prunus.boxes`): `model` followed by `decode`."""

    def __init__(self, model: nn.Module, decode: Callable[[Any], Tensor]) -> None:
        super().__init__()
        self.model, self.decode = model, decode

    def forward(self, images: Tensor) -> Tensor:
        """Return the detections."""
        return self.decode(self.model(images))


def agreement(first: Tensor, second: Tensor, shown: float) -> tuple[int, int]:
    """Return how many of both runs' detections with a score of at least `shown` agree, and their number.

    A detection agrees if the other run has one of its class with an IoU of at least 0.99 and a score within 0.001.
    """
    same = number = 0
    for rows, others in zip(first, second, strict=True):
        for own, rest in ((rows, others), (others, rows)):
            chosen = own[own[:, 5] >= shown]
            near = overlaps(chosen[:, 1:5], rest[:, 1:5]) >= SAME
            near &= chosen[:, None, 0] == rest[None, :, 0]
            near &= (chosen[:, None, 5] - rest[None, :, 5]).abs() <= CLOSE
            same, number = same + int(near.any(dim=1).sum()), number + len(chosen)
    return same, number


def unlike(rows: Tensor, others: Tensor, shown: float) -> float:
    """Return the share of two networks' shown detections on an image, [K, 6], that the other lacks (IoU below 0.5)."""
    alone = number = 0
    for own, rest in ((rows, others), (others, rows)):
        own, rest = (each[each[:, 5] >= shown] for each in (own, rest))
        near = (overlaps(own[:, 1:5], rest[:, 1:5]) >= 0.5) & (own[:, None, 0] == rest[None, :, 0])
        alone, number = alone + int((~near.any(dim=1)).sum()), number + len(own)
    return alone / number if number else 0.0


def aligned(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Return both runs' detections [N, K, 6], the second in the order of the first.

    Rounding may swap detections of nearly equal scores, and replace the last of the K by another detection; both
    members of such a pair are zeroed, so that the others can be compared element by element.
    """
    first, second = first.clone(), second.clone()
    for rows, others in zip(first, second, strict=True):
        apart = (rows[:, None, 1:5] - others[None, :, 1:5]).abs().amax(-1)
        apart = apart + (rows[:, None, 5] - others[None, :, 5]).abs()
        apart = apart.masked_fill(rows[:, None, 0] != others[None, :, 0], torch.inf)
        order, left = torch.full((len(rows),), -1), torch.ones(len(rows), dtype=torch.bool)
        for index in range(len(rows)):
            nearest = int(apart[index].where(left, torch.inf).argmin())
            if bool(left[nearest]) and bool(apart[index, nearest] < 1):
                order[index], left[nearest] = nearest, False
        alone = order < 0
        order[alone] = torch.nonzero(left).flatten()[: int(alone.sum())]
        others.copy_(others[order])
        last = torch.minimum(rows[-1, 5], others[:, 5].min()) + CLOSE
        beyond = alone & (rows[:, 5] <= last) & (others[:, 5] <= last)
        rows[beyond], others[beyond] = 0.0, 0.0
    return first, second
