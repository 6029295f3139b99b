"""One encoder and two heads: segmentation and detection on the same image.

The layout of MultiNet (Teichmann et al., IV 2018): all heads read one encoder. All sizes are our choice.
"""

from collections.abc import Mapping

from torch import Tensor, nn

from prunus.errors import RecipeError
from prunus.models.centre_detector import Blocks, CentreDetector
from prunus.models.erfnet import NonBottleneck1d, Upsampler

TASKS = ("segmentation", "detection")


class MultiTaskNet(nn.Module):
    """Images [N, 3, H, W] to {"segmentation": [N, C, H, W], "detection": {"heat", "sides"}}, see `CentreDetector`.

    Both heads read the encoder's pyramid at 1/4 of the image; the segmentation head upsamples it twice by 2.

    Args:
        num_classes: {"segmentation": C, "detection": number of object classes}.
        blocks, widths, depth, neck: of the encoder and its pyramid; see `CentreDetector`.

    Raises:
        RecipeError: invalid settings, or numbers of classes for other tasks.
    """

    def __init__(
        self,
        *,
        num_classes: Mapping[str, int],
        blocks: Blocks = "depthwise",
        widths: tuple[int, ...] = (16, 32, 64, 96, 128),
        depth: int = 1,
        neck: int = 48,
    ) -> None:
        super().__init__()
        if not isinstance(num_classes, Mapping) or set(num_classes) != set(TASKS):
            given = ", ".join(num_classes) if isinstance(num_classes, Mapping) else "one task"
            raise RecipeError(
                f"MultiTaskNet has the sub-tasks {' and '.join(TASKS)}, and the data give classes for {given}: choose "
                "data with these two (prunus.data.StreetMultiTaskData, CombinedData), or a network of your own"
            )
        self.detector = CentreDetector(
            num_classes=num_classes["detection"], blocks=blocks, widths=widths, depth=depth, neck=neck
        )
        inner = max(1, neck // 2)
        self.segmenter = nn.Sequential(
            Upsampler(neck, inner),
            NonBottleneck1d(inner, dropout=0.0, dilation=1),
            nn.ConvTranspose2d(inner, num_classes["segmentation"], 2, stride=2),
        )

    def forward(self, images: Tensor) -> dict[str, Tensor | dict[str, Tensor]]:
        """Return the class scores of each pixel, and the detector's raw heads."""
        level = self.detector.features(images)
        return {"segmentation": self.segmenter(level), "detection": self.detector.heads(level)}
