"""torchvision's one-stage detectors up to their raw heads, which is what is traced, shrunk and exported."""

from typing import Any

from torch import Tensor, nn

from prunus.compat import detection_model
from prunus.errors import RecipeError


class TorchvisionDetector(nn.Module):
    """Images [N, 3, H, W], normalised, to what the detector's head returns, for `TorchvisionHeads`.

    That is {"cls_logits": [N, A, C], "bbox_regression": [N, A, 4]}, and "bbox_ctrness" [N, A, 1] of FCOS, A anchors of
    all levels. torchvision's own resizing, normalisation, anchors, loss and suppression are not in it.

    Args:
        num_classes: C, without the background.
        function: of torchvision.models.detection: ssdlite320_mobilenet_v3_large, retinanet_resnet50_fpn, ...
        arguments: its other keyword arguments.

    Raises:
        RecipeError: no such function, or one whose detector has two stages.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        function: str = "ssdlite320_mobilenet_v3_large",
        arguments: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        try:
            built = detection_model(function, num_classes, arguments or {})
        except ValueError as error:
            raise RecipeError(f"model.function: {error}") from error
        self.backbone, self.head = built.backbone, built.head

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return the raw heads."""
        heads: dict[str, Tensor] = self.head(list(self.backbone(images).values()))
        return heads
