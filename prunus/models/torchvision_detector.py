"""torchvision's one-stage detectors up to their raw heads: the part that is traced, shrunk and exported."""

from typing import Any

from torch import Tensor, nn

from prunus.compat import detection_model
from prunus.errors import RecipeError


class TorchvisionDetector(nn.Module):
    """Normalised images [N, 3, H, W] to the output of the detector's head, for `TorchvisionHeads`.

    The output is {"cls_logits": [N, A, C], "bbox_regression": [N, A, 4]}, for FCOS also "bbox_ctrness" [N, A, 1], with
    A anchors over all levels; C includes the background in SSD. torchvision's resizing, normalisation, anchors, loss
    and suppression are not included.

    Args:
        num_classes: without the background.
        function: of torchvision.models.detection: ssdlite320_mobilenet_v3_large, retinanet_resnet50_fpn, ...
        arguments: the function's other keyword arguments.

    Raises:
        RecipeError: there is no such function, or its detector has two stages.
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
