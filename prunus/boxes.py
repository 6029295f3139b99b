"""Boxes as tensors: the objects in an image, and the rows by which a batch carries them.

A batch holds images with unequal numbers of objects. So that every DataLoader can stack them, the objects of an image
are a float32 tensor [M, 10], with the same M for a whole data set; `COLUMNS` names the columns. Rows without an object
are ignored regions of zero area, which overlap nothing, so no code needs to treat them separately. Detections are rows
too, float32 [K, 6]: label, x1, y1, x2, y2, score; rows without a detection have the score 0.
"""

import dataclasses
import math

import torch
from torch import Tensor

COLUMNS = ("label", "x1", "y1", "x2", "y2", "ignored", "truncation", "occlusion", "distance", "scale")
DETECTION_COLUMNS = ("label", "x1", "y1", "x2", "y2", "score")
EVERY = -1  # the label of an ignored region in which no class counts, such as KITTI's DontCare


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Objects:
    """The objects of one image, M of them.

    Attributes:
        boxes: float32 [M, 4], corners (x1, y1, x2, y2) in pixels; x2 and y2 exclusive.
        labels: int64 [M], a class, or EVERY for an ignored region in which no class counts.
        ignored: bool [M]; finding such an object is neither right nor wrong.
        truncation: float32 [M], share of the object outside the image, in [0, 1].
        occlusion: float32 [M], KITTI's 0 (visible), 1 (partly), 2 (largely), 3 (unknown).
        distance: float32 [M], metres from the camera; NaN where unknown.
        scale: pixels per pixel of the image file: 0.5 where the image was halved.
    """

    boxes: Tensor
    labels: Tensor
    ignored: Tensor
    truncation: Tensor
    occlusion: Tensor
    distance: Tensor
    scale: float = 1.0

    @classmethod
    def of(
        cls,
        boxes: Tensor,
        labels: Tensor,
        *,
        ignored: Tensor | None = None,
        truncation: Tensor | None = None,
        occlusion: Tensor | None = None,
        distance: Tensor | None = None,
        scale: float = 1.0,
    ) -> "Objects":
        """Return objects of which at least boxes and labels are known."""
        number = len(labels)
        return cls(
            boxes=boxes.float().reshape(number, 4),
            labels=labels.long(),
            ignored=torch.zeros(number, dtype=torch.bool) if ignored is None else ignored,
            truncation=torch.zeros(number) if truncation is None else truncation,
            occlusion=torch.zeros(number) if occlusion is None else occlusion,
            distance=torch.full((number,), math.nan) if distance is None else distance,
            scale=scale,
        )

    @classmethod
    def from_rows(cls, rows: Tensor) -> "Objects":
        """Return the objects of the rows [M, 10], without rows of zero area."""
        scale = float(rows[0, 9]) if len(rows) else 1.0
        rows = rows[(rows[:, 3] > rows[:, 1]) & (rows[:, 4] > rows[:, 2])]
        return cls(
            boxes=rows[:, 1:5],
            labels=rows[:, 0].long(),
            ignored=rows[:, 5] > 0,
            truncation=rows[:, 6],
            occlusion=rows[:, 7],
            distance=rows[:, 8],
            scale=scale,
        )

    def rows(self, number: int) -> Tensor:
        """Return the rows, float32 [number, 10]; rows after the last object are regions of zero area."""
        rows = torch.zeros(number, len(COLUMNS))
        rows[:, 0], rows[:, 5], rows[:, 9] = EVERY, 1, self.scale
        own = (self.labels, *self.boxes.unbind(1), self.ignored, self.truncation, self.occlusion, self.distance)
        rows[: len(self), :9] = torch.stack([column.float() for column in own], dim=1)
        return rows

    def __len__(self) -> int:
        return len(self.labels)

    def chosen(self, which: Tensor) -> "Objects":
        """Return the objects that `which`, a mask or indices, selects."""
        names = ("boxes", "labels", "ignored", "truncation", "occlusion", "distance")
        return dataclasses.replace(self, **{name: getattr(self, name)[which] for name in names})


def areas(boxes: Tensor) -> Tensor:
    """Return the areas of boxes [..., 4]: [...]."""
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(dim=-1)


def intersections(first: Tensor, second: Tensor) -> Tensor:
    """Return the areas that boxes [M, 4] and [N, 4] share: [M, N]."""
    low = torch.maximum(first[:, None, :2], second[None, :, :2])
    high = torch.minimum(first[:, None, 2:], second[None, :, 2:])
    return (high - low).clamp(min=0).prod(dim=-1)


def overlaps(first: Tensor, second: Tensor) -> Tensor:
    """Return the intersection over union of boxes [M, 4] and [N, 4]: [M, N]; 0 for two boxes of zero area."""
    shared = intersections(first, second)
    union = areas(first)[:, None] + areas(second)[None] - shared
    return shared / union.clamp(min=torch.finfo(shared.dtype).tiny)


def covered(first: Tensor, second: Tensor) -> Tensor:
    """Return the share of each box [M, 4] that lies inside each of [N, 4]: [M, N]."""
    return intersections(first, second) / areas(first)[:, None].clamp(min=torch.finfo(first.dtype).tiny)
