"""DecN: networks of one-dimensional filters.

Alvarez & Petersson, "DecomposeMe: Simplifying ConvNets for End-to-End Learning", arXiv 1606.05426; Alvarez & Salzmann,
NIPS 2016, learned their widths in training. A pair is a k x 1 convolution, ReLU, a 1 x k convolution, ReLU.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from prunus.errors import RecipeError

STEM = ((32, 64), (128, 256), (384, 384), (512, 512))  # channels (vertical, horizontal) of Dec8's first four pairs
POOLED = (0, 1, 3)  # pairs of Dec8 followed by a max-pool


class Pair(nn.Module):
    """k x 1 convolution (in -> middle), ReLU, 1 x k convolution (middle -> out), ReLU; odd k keeps the shape."""

    def __init__(self, in_channels: int, middle: int, out_channels: int, kernel: int = 3) -> None:
        super().__init__()
        padding = kernel // 2
        self.vertical = nn.Conv2d(in_channels, middle, (kernel, 1), padding=(padding, 0))
        self.horizontal = nn.Conv2d(middle, out_channels, (1, kernel), padding=(0, padding))

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Map [N, in, H, W] to [N, out, H, W] (for even k, height and width grow by 1)."""
        return torch.relu(self.horizontal(torch.relu(self.vertical(input))))


class SkippedPair(nn.Module):
    """A pair with a skip around it: input + pair(input). If all units of the pair become zero, it can be bypassed."""

    def __init__(self, channels: int, kernel: int = 3) -> None:
        super().__init__()
        self.pair = Pair(channels, channels, channels, kernel)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Map [N, channels, H, W] to the same shape."""
        result: Tensor = input + self.pair(input)
        return result


class _Averaged(nn.Module):
    """Features, global average, dropout, linear layer."""

    def __init__(self, features: nn.Sequential, num_features: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.features = features
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(num_features, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # keeps the variance in a deep network without BatchNorm (He et al. 2015)
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Return the class scores [N, num_classes] before softmax."""
        scores: Tensor = self.classifier(self.dropout(self.pool(self.features(images)).flatten(1)))
        return scores


class Dec8(_Averaged):
    """Dec8-M: eight pairs of kernel length 3; images [N, in_channels, H, W] from 16 x 16 to scores [N, num_classes].

    Channels are (32, 64), (128, 256), (384, 384), (512, 512), then four times (width, width). `width` 512 is Dec8, 640
    and 768 are Dec8-640 and Dec8-768. The paper does not state where the network pools; here a max-pool 2 x 2 follows
    the first, second and fourth pair, and a global average precedes the classifier. The parameters confirm this layout:
    the pairs and the classifier alone give the published 46.73 % for width 768.

    `skips` adds pairs of `width` channels, each with a skip around it, after the seventh and the eighth pair
    (GTC 2019, slides 70 to 72: Dec7-1, Dec7-2, Dec8-1, Dec8-2): `skips: [2, 2]` adds two after each. A pair
    whose units all become zero can be bypassed, so that the depth is learned too.

    Raises:
        RecipeError: `width` is below 1, or `skips` is not two numbers of at least 0.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        width: int = 512,
        skips: tuple[int, int] = (0, 0),
        in_channels: int = 3,
        dropout: float = 0.0,
    ) -> None:
        if width < 1 or len(skips) != 2 or min(skips) < 0:
            raise RecipeError(
                f"Dec8 needs a width of at least 1 and two numbers of skipped pairs, not {width} and {list(skips)}"
            )
        layers: list[nn.Module] = []
        before = in_channels
        for index, (middle, after) in enumerate((*STEM, *[(width, width)] * 4)):
            layers.append(Pair(before, middle, after))
            layers += [nn.MaxPool2d(2)] if index in POOLED else []
            layers += [SkippedPair(width) for _ in range({6: skips[0], 7: skips[1]}.get(index, 0))]
            before = after
        super().__init__(nn.Sequential(*layers), width, num_classes, dropout)


class Dec3(_Averaged):
    """Dec3-M for characters: images [N, in_channels, H, W] from 16 x 16 to scores [N, num_classes].

    Three pairs, (48, 96) with k 9, (160, 256) with k 9, (M, M) with k 8; M is `width`. Width 512 on grey images is the
    published network, with 3.70 M weights in its convolutions. As in Dec8, the placement of the pools is ours: a
    max-pool 2 x 2 after the first two pairs.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        width: int = 512,
        stem: Sequence[tuple[int, int]] = ((48, 96), (160, 256)),
        in_channels: int = 1,
        dropout: float = 0.0,
    ) -> None:
        if width < 1 or len(stem) != 2:
            raise RecipeError(f"Dec3 needs a width of at least 1 and two pairs in its stem, not {width}, {list(stem)}")
        (first, second), (third, fourth) = stem
        features = nn.Sequential(
            Pair(in_channels, first, second, 9),
            nn.MaxPool2d(2),
            Pair(second, third, fourth, 9),
            nn.MaxPool2d(2),
            Pair(fourth, width, width, 8),
        )
        super().__init__(features, width, num_classes, dropout)
