"""The heads of torchvision's SSD, SSDLite, RetinaNet and FCOS, with torchvision's anchors, loss and suppression."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from prunus.boxes import Objects
from prunus.compat import detection_model, torchvision
from prunus.errors import RecipeError
from prunus.tasks.heads import BoundHeads, Heads, parts

detection = torchvision.models.detection


@dataclasses.dataclass(frozen=True, kw_only=True)
class TorchvisionHeads(Heads):
    """Settings of the heads of a `TorchvisionDetector`; `function` and `arguments` are those of the network.

    torchvision's losses treat ignored objects as background.
    """

    function: str = "ssdlite320_mobilenet_v3_large"
    arguments: dict[str, Any] = dataclasses.field(default_factory=dict)

    def bind(self, num_classes: int, size: tuple[int, int]) -> "BoundTorchvision":
        """Return the heads for `num_classes` classes and images of `size`.

        Raises:
            RecipeError: there is no such detector, or it has two stages.
        """
        try:
            model = detection_model(self.function, num_classes, self.arguments)
        except ValueError as error:
            raise RecipeError(f"task.heads.function: {error}") from error
        return BoundTorchvision(model, size)


@final
class BoundTorchvision(BoundHeads):
    """torchvision's loss and decoding; the weights of `model` are not used."""

    suppresses = True

    def __init__(self, model: nn.Module, size: tuple[int, int]) -> None:
        self.model, self.size = model, size
        self.background = int(isinstance(model, detection.ssd.SSD))  # SSD's class 0
        self.keys = {"cls_logits": 3, "bbox_regression": 3}
        if isinstance(model, detection.FCOS):
            self.keys["bbox_ctrness"] = 3
        images = detection.image_list.ImageList(torch.zeros(1, 3, *size), [tuple(size)])
        with torch.no_grad():
            features = list(model.eval().backbone(images.tensors).values())  # type: ignore[operator]
        self.cells = [level.shape[2] * level.shape[3] for level in features]
        self.anchors: Tensor = model.anchor_generator(images, features)[0]  # type: ignore[operator]
        model.backbone = nn.Identity()  # frees its memory

    def loss(self, output: Any, objects: Sequence[Objects]) -> Tensor:
        """Return the sum of torchvision's losses.

        Raises:
            TrainingError: the output is not that of this detector.
        """
        heads = self._heads(output)
        device = heads["cls_logits"].device
        real = [each.chosen(~each.ignored) for each in objects]
        targets = [
            {"boxes": each.boxes.to(device), "labels": each.labels.to(device) + self.background} for each in real
        ]
        anchors = [self.anchors.to(device)] * len(targets)
        losses: Mapping[str, Tensor]
        if isinstance(self.model, detection.FCOS):
            levels = self._anchors_per_level()
            losses = self.model.compute_loss(targets, heads, anchors, levels)
        else:
            owners = [self._owners(target["boxes"], anchors[0]) for target in targets]
            losses = (
                self.model.compute_loss(targets, heads, anchors, owners)  # type: ignore[operator]
                if self.background
                else self.model.head.compute_loss(targets, heads, anchors, owners)  # type: ignore[operator, union-attr]
            )
        total: Tensor = torch.stack(list(losses.values())).sum()
        return total

    def imitation(self, output: Any, answer: Any) -> Tensor:
        """Return the mean squared difference of the heads, weighted by the teacher's score of the anchor."""
        heads, taught = self._heads(output), self._heads(answer)
        logits = taught["cls_logits"].detach()
        scores = logits.softmax(-1)[..., 1:] if self.background else logits.sigmoid()
        weights = scores.amax(dim=-1, keepdim=True)
        apart = sum(((heads[key] - taught[key].detach()) ** 2).mean(-1, keepdim=True) for key in self.keys)
        total: Tensor = (apart * weights).sum() / weights.sum().clamp(min=1)
        return total

    def decode(self, output: Any, most: int) -> Tensor:
        """Return torchvision's detections after its non-maximum suppression."""
        heads = self._heads(output)
        number = len(heads["cls_logits"])
        anchors, sizes = [self.anchors.to(heads["cls_logits"].device)] * number, [tuple(self.size)] * number
        if self.background:
            found = self.model.postprocess_detections(heads, anchors, sizes)  # type: ignore[operator]
        else:
            levels = self._anchors_per_level()
            split = {key: list(torch.split(value, levels, dim=1)) for key, value in heads.items()}
            parted = [list(torch.split(each, levels)) for each in anchors]
            found = self.model.postprocess_detections(split, parted, sizes)  # type: ignore[operator]
        return torch.stack([self._rows(each, most) for each in found])

    def _rows(self, found: Mapping[str, Tensor], most: int) -> Tensor:
        labels = found["labels"].float() - self.background
        rows = torch.cat([labels[:, None], found["boxes"], found["scores"][:, None]], dim=1)[:most]
        return functional.pad(rows, (0, 0, 0, most - len(rows)))

    def _anchors_per_level(self) -> list[int]:
        each = len(self.anchors) // sum(self.cells)
        return [each * cells for cells in self.cells]

    def _owners(self, boxes: Tensor, anchors: Tensor) -> Tensor:
        """Return the index of each anchor's box, int64 [A]; negative for an anchor without one."""
        if not len(boxes):
            return torch.full((len(anchors),), -1, dtype=torch.int64, device=anchors.device)
        owners: Tensor = self.model.proposal_matcher(torchvision.ops.box_iou(boxes, anchors))  # type: ignore[operator]
        return owners

    def _heads(self, output: Any) -> dict[str, Tensor]:
        found = parts(output, self.keys, "prunus.tasks.torchvision_heads.TorchvisionHeads")
        return dict(zip(self.keys, (each.float() for each in found), strict=True))
