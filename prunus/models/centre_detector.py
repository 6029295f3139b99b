"""A small anchor-free detector: an encoder, a pyramid up to 1/4 of the image, heads for centres and sides.

Zhou et al. 2019, "Objects as Points"; the pyramid is that of Lin et al., CVPR 2017, with one output. All sizes are our
choice. The encoder has one kind of block: ERFNet's, residual, or depthwise-separable as in MobileNet.
"""

import itertools
import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from prunus.errors import RecipeError
from prunus.models.erfnet import Downsampler, NonBottleneck1d
from prunus.models.small import ResidualBlock

Blocks = Literal["depthwise", "residual", "erfnet"]
FREQUENT = 0.05  # initial score of every cell, low since few cells are a centre


class DepthwiseBlock(nn.Module):
    """Depthwise 3x3, BN, ReLU, 1x1, BN, ReLU (Howard et al. 2017, fig. 3), with a skip if the shape is unchanged."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.spatial = nn.Conv2d(in_channels, in_channels, 3, stride, padding=1, groups=in_channels, bias=False)
        self.spatial_norm = nn.BatchNorm2d(in_channels)
        self.pointwise = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.pointwise_norm = nn.BatchNorm2d(out_channels)
        self.skips = stride == 1 and in_channels == out_channels

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Map [N, in, H, W] to [N, out, H/stride, W/stride]."""
        output = torch.relu(self.spatial_norm(self.spatial(input)))
        output = self.pointwise_norm(self.pointwise(output))
        return torch.relu(output + input if self.skips else output)


def _depthwise(before: int, after: int, depth: int) -> nn.Module:
    return nn.Sequential(DepthwiseBlock(before, after, 2), *[DepthwiseBlock(after, after, 1) for _ in range(depth)])


def _residual(before: int, after: int, depth: int) -> nn.Module:
    return nn.Sequential(ResidualBlock(before, after, 2), *[ResidualBlock(after, after, 1) for _ in range(depth)])


def _erfnet(before: int, after: int, depth: int) -> nn.Module:
    blocks = [NonBottleneck1d(after, 0.03, dilation=2**number) for number in range(depth)]
    return nn.Sequential(Downsampler(before, after), *blocks)


STAGES: dict[str, Callable[[int, int, int], nn.Module]] = {
    "depthwise": _depthwise,
    "residual": _residual,
    "erfnet": _erfnet,
}


class CentreDetector(nn.Module):
    """Images [N, 3, H, W] to {"heat": [N, num_classes, H/4, W/4], "sides": [N, 4, H/4, W/4]}, for `Centre` heads.

    H and W are multiples of 2^len(widths). Heat is the logit of an object's centre in the cell; sides are ln of the
    distances to left, top, right and bottom, in cells.

    Args:
        num_classes: number of classes.
        blocks: the encoder's kind of block.
        widths: channels of the encoder at 1/2, 1/4, 1/8, ... of the image.
        depth: blocks at each resolution besides the downsampling block.
        neck: channels of the pyramid and the heads.

    Raises:
        RecipeError: invalid settings, or an image whose sides are not such multiples.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        blocks: Blocks = "depthwise",
        widths: tuple[int, ...] = (16, 32, 64, 96, 128),
        depth: int = 1,
        neck: int = 48,
    ) -> None:
        super().__init__()
        growing = blocks != "erfnet" or all(before < after for before, after in itertools.pairwise(widths))
        if len(widths) < 3 or min(widths) < 1 or neck < 1 or depth < 0 or num_classes < 1 or not growing:
            raise RecipeError(
                f"CentreDetector needs three widths or more (growing ones for erfnet), a neck and classes of at least "
                f"1, not widths {list(widths)}, neck {neck}, depth {depth}, {num_classes} classes"
            )
        first = nn.Conv2d(3, widths[0], 3, stride=2, padding=1, bias=False)
        self.stem = nn.Sequential(first, nn.BatchNorm2d(widths[0]), nn.ReLU())
        pairs = itertools.pairwise(widths)
        self.stages = nn.ModuleList([STAGES[blocks](before, after, depth) for before, after in pairs])
        self.laterals = nn.ModuleList([nn.Conv2d(width, neck, 1) for width in widths[1:]])
        self.upsample = nn.Upsample(scale_factor=2, mode="nearest")
        self.smooth = nn.Sequential(nn.Conv2d(neck, neck, 3, padding=1, bias=False), nn.BatchNorm2d(neck), nn.ReLU())
        self.heat = _head(neck, num_classes)
        self.sides = _head(neck, 4)
        nn.init.constant_(self.heat[-1].bias, -math.log((1 - FREQUENT) / FREQUENT))  # type: ignore[arg-type]
        nn.init.constant_(self.sides[-1].bias, 1.0)  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return the raw heads."""
        return self.heads(self.features(images))

    def heads(self, level: Tensor) -> dict[str, Tensor]:
        """Return the raw heads for the output of `features`."""
        return {"heat": self.heat(level), "sides": self.sides(level)}

    def features(self, images: Tensor) -> Tensor:
        """Return the input of the heads, [N, neck, H/4, W/4].

        Raises:
            RecipeError: the image's sides are not multiples of 2^len(widths).
        """
        multiple = 2 ** (len(self.stages) + 1)
        height, width = images.shape[-2:]
        if height % multiple or width % multiple:
            raise RecipeError(
                f"CentreDetector halves the image {len(self.stages) + 1} times, so height and width must be multiples "
                f"of {multiple}; got {height} x {width}: set the data's `size`"
            )
        features, found = self.stem(images), list[Tensor]()
        for stage, lateral in zip(self.stages, self.laterals, strict=True):
            features = stage(features)
            found.append(lateral(features))
        level = found.pop()
        while found:
            level = self.upsample(level) + found.pop()
        smooth: Tensor = self.smooth(level)
        return smooth


def _head(neck: int, channels: int) -> nn.Sequential:
    last = nn.Conv2d(neck, channels, 1)
    nn.init.normal_(last.weight, std=0.01)
    return nn.Sequential(nn.Conv2d(neck, neck, 3, padding=1), nn.ReLU(), last)
