"""Centre heads: each object is a peak in its class's heatmap, with the four distances to its sides at the peak.

Zhou et al. 2019, "Objects as Points" (peaks by a max-pool instead of suppression; the focal loss of Law & Deng 2018);
Liu et al., AAAI 2020 (TTFNet: elliptic Gaussians, which also weight the boxes that are learned around the centre).
"""

import copy
import dataclasses
import math
from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor
from torch.nn import functional

from prunus.boxes import EVERY, Objects, areas
from prunus.compat import torchvision
from prunus.errors import RecipeError, TrainingError
from prunus.tasks.heads import BoundHeads, Heads, parts

SPREAD = 0.54 / 6  # standard deviation of a peak, as a share of its box's side (TTFNet)
LARGEST = 8.0  # upper bound of a predicted ln(side): e^8 cells exceed any image


@dataclasses.dataclass(frozen=True, kw_only=True)
class Centre(Heads):
    """Settings of heads that return {"heat": [N, C, h, w], "sides": [N, 4, h, w]}, as `CentreDetector` does.

    Heat is logits; sides are ln of the distances from the cell's centre to left, top, right and bottom, in cells.

    Attributes:
        box_weight: weight of the boxes' generalised IoU loss relative to the heatmaps' focal loss.
    """

    box_weight: float = 5.0

    def __post_init__(self) -> None:
        if not 0 < self.box_weight < math.inf:
            raise RecipeError(f"task.heads.box_weight must be above zero, and finite, not {self.box_weight}")

    def bind(self, num_classes: int, size: tuple[int, int]) -> "BoundCentre":
        """Return the heads for `num_classes` classes and images of `size`."""
        return BoundCentre(num_classes, size, self.box_weight)


CENTRE = Centre()


@final
class BoundCentre(BoundHeads):
    """Centre heads for C classes."""

    suppresses = False

    def __init__(self, num_classes: int, size: tuple[int, int], box_weight: float) -> None:
        self.num_classes, self.size, self.box_weight = num_classes, size, box_weight
        self.class_weights = torch.ones(num_classes)

    def weighted(self, weights: Tensor) -> "BoundCentre":
        """Return these heads with the losses of each class's heatmap and boxes multiplied by its weight, float [C]."""
        heads = copy.copy(self)
        heads.class_weights = self.class_weights * weights
        return heads

    def loss(self, output: Any, objects: Sequence[Objects]) -> Tensor:
        """Return (focal loss + box_weight * generalised IoU loss) / number of objects.

        Raises:
            TrainingError: the output does not fit the heads or the classes.
        """
        heat, sides = self._checked(output, len(objects))
        stride = self._stride(heat)
        height, width = heat.shape[-2:]
        targets = [_targets(each, self.class_weights, (height, width), stride) for each in objects]
        peaks, counted, boxes, weights = (torch.stack(parts).to(heat.device) for parts in zip(*targets, strict=True))
        number = max(1, sum(int((~each.ignored).sum()) for each in objects))
        found = _boxes(sides, stride)
        use = weights > 0
        apart = torchvision.ops.generalized_box_iou_loss(found[use], boxes[use], reduction="none")
        box_loss: Tensor = (apart * weights[use]).sum()
        of_classes = self.class_weights.to(heat.device)[:, None, None]
        return (_focal(heat, peaks, counted, of_classes) + self.box_weight * box_loss) / number

    def imitation(self, output: Any, answer: Any) -> Tensor:
        """Return sum over cells (KL(teacher || student) of the scores + w |ln side - ln side'|) / sum over cells w.

        The weight w of a cell is the teacher's highest score there.
        """
        (heat, sides), (taught, wanted) = (self._checked(each, None) for each in (output, answer))
        taught, wanted = taught.detach(), wanted.detach()
        weights = taught.sigmoid().amax(dim=1, keepdim=True)
        cross, own = (
            functional.binary_cross_entropy_with_logits(each, taught.sigmoid(), reduction="sum")
            for each in (heat, taught)
        )
        total: Tensor = cross - own + ((sides - wanted).abs() * weights).sum()
        return total / weights.sum().clamp(min=1)

    def decode(self, output: Any, most: int) -> Tensor:
        """Return the `most` highest peaks; a peak is at least as high as its eight neighbours."""
        heat, sides = self._checked(output, None)
        scores = heat.sigmoid()
        scores = scores * (functional.max_pool2d(scores, 3, stride=1, padding=1) == scores)
        cells = heat.shape[2] * heat.shape[3]
        best, index = scores.flatten(1).topk(min(most, self.num_classes * cells))
        label, cell = index // cells, index % cells
        boxes = _boxes(sides, self._stride(heat)).flatten(1, 2)
        chosen = boxes.gather(1, cell[..., None].expand(-1, -1, 4))
        chosen = chosen.clamp(min=0).minimum(chosen.new_tensor([self.size[1], self.size[0]] * 2))
        rows = torch.cat([label[..., None].float(), chosen, best[..., None]], dim=-1)
        return functional.pad(rows, (0, 0, 0, most - rows.shape[1]))

    def _stride(self, heat: Tensor) -> float:
        return self.size[1] / heat.shape[-1]

    def _checked(self, output: Any, number: int | None) -> list[Tensor]:
        heat, sides = parts(output, {"heat": 4, "sides": 4}, "prunus.tasks.centre.Centre")
        wanted = [heat.shape[0] if number is None else number, self.num_classes]
        if list(heat.shape[:2]) != wanted or sides.shape != (heat.shape[0], 4, *heat.shape[2:]):
            raise TrainingError(
                f"the network's heat is {list(heat.shape)}, its sides {list(sides.shape)}: for {self.num_classes} "
                f"classes they must be {[*wanted, 'h', 'w']} and {[wanted[0], 4, 'h', 'w']}"
            )
        return [heat.float(), sides.float()]


def _boxes(sides: Tensor, stride: float) -> Tensor:
    """Return the predicted box of each cell, [N, h, w, 4], in pixels."""
    height, width = sides.shape[-2:]
    x = torch.arange(width, dtype=sides.dtype, device=sides.device) + 0.5
    y = torch.arange(height, dtype=sides.dtype, device=sides.device)[:, None] + 0.5
    left, top, right, bottom = sides.clamp(max=LARGEST).exp().unbind(1)
    return torch.stack([x - left, y - top, x + right, y + bottom], dim=-1) * stride


def _focal(heat: Tensor, peaks: Tensor, counted: Tensor, weights: Tensor) -> Tensor:
    """Return -sum of (1 - p)^2 ln p at the peaks and (1 - y)^4 p^2 ln(1 - p) around them (Law & Deng 2018, eq. 1)."""
    positive = peaks == 1
    right = (1 - heat.sigmoid()) ** 2 * functional.logsigmoid(heat)
    wrong = (1 - peaks) ** 4 * heat.sigmoid() ** 2 * functional.logsigmoid(-heat) * counted
    return -(torch.where(positive, right, wrong) * weights).sum()


def _targets(
    objects: Objects, class_weights: Tensor, shape: tuple[int, int], stride: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the targets of an image's cells.

    Returns:
        peaks [C, h, w], 1 at the cell of an object's centre, a Gaussian around it; counted [C, h, w], 0 inside ignored
        regions; boxes [h, w, 4], that of the object whose Gaussian is highest at the cell (the smaller object in a
        tie), so that each peak has its own box; weights [h, w] of the boxes, which sum to the class's weight over an
        object's cells, less the cells that other objects take.
    """
    (height, width), num_classes = shape, len(class_weights)
    peaks, counted = torch.zeros(num_classes, height, width), torch.ones(num_classes, height, width)
    boxes, (weights, highest) = torch.zeros(height, width, 4), torch.zeros(2, height, width)
    x, y = torch.arange(width) + 0.5, torch.arange(height)[:, None] + 0.5
    for box, label in zip(objects.boxes[objects.ignored].cpu() / stride, objects.labels[objects.ignored], strict=True):
        inside = (x >= box[0]) & (x < box[2]) & (y >= box[1]) & (y < box[3])
        counted[slice(None) if label == EVERY else int(label), inside] = 0
    real = objects.chosen(~objects.ignored)
    for index in areas(real.boxes).argsort(descending=True).tolist():
        box = real.boxes[index].cpu() / stride
        centre = ((box[:2] + box[2:]) / 2).floor() + 0.5
        centre = centre.clamp(min=0.5).minimum(torch.tensor([width - 0.5, height - 0.5]))
        spread = ((box[2:] - box[:2]) * SPREAD).clamp(min=0.3)
        apart = ((x - centre[0]) / spread[0]) ** 2 + ((y - centre[1]) / spread[1]) ** 2
        peak = torch.exp(-apart / 2).where(apart < 9, 0.0)  # to three standard deviations
        label = int(real.labels[index])
        peaks[label] = torch.maximum(peaks[label], peak)
        here = (peak > 0) & (peak >= highest)
        highest[here] = peak[here]
        weights[here], boxes[here] = (class_weights[label] * peak / peak.sum())[here], box * stride
    return peaks, counted, boxes, weights
