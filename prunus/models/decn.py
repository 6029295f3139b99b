"""DecN: networks of one-dimensional filters.

Alvarez & Petersson, "DecomposeMe: Simplifying ConvNets for End-to-End Learning", arXiv 1606.05426; Alvarez & Salzmann,
NIPS 2016, trained them to learn their own widths. A pair is a k x 1 convolution, ReLU, a 1 x k convolution, ReLU.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from prunus.errors import RecipeError

STEM = ((32, 64), (128, 256), (384, 384), (512, 512))  # channels (vertical, horizontal) of Dec8's first four pairs
POOLED = (0, 1, 3)  # pairs of Dec8 that a max-pool follows


class Pair(nn.Module):
    """k x 1 convolution (in -> middle), ReLU, 1 x k convolution (middle -> out), ReLU; odd k keeps the shape."""

    def __init__(self, in_channels: int, middle: int, out_channels: int, kernel: int = 3) -> None:
        super().__init__()
        padding = kernel // 2
        self.vertical = nn.Conv2d(in_channels, middle, (kernel, 1), padding=(padding, 0))
        self.horizontal = nn.Conv2d(middle, out_channels, (1, kernel), padding=(0, padding))

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """[N, in, H, W] to [N, out, H, W] (an even k: one more each way)."""
        return torch.relu(self.horizontal(torch.relu(self.vertical(input))))


class SkippedPair(nn.Module):
    """A pair with a skip around it: input + pair(input). If all units of the pair go to zero, the pair is bypassed."""

    def __init__(self, channels: int, kernel: int = 3) -> None:
        super().__init__()
        self.pair = Pair(channels, channels, channels, kernel)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """[N, channels, H, W] to the same shape."""
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
            if isinstance(module, nn.Conv2d):  # deep, and without BatchNorm: keep the variance (He et al. 2015)
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Class scores [N, num_classes], before any softmax."""
        scores: Tensor = self.classifier(self.dropout(self.pool(self.features(images)).flatten(1)))
        return scores


class Dec8(_Averaged):
    """Dec8-M: eight pairs of kernel length 3; images [N, in_channels, H, W] from 16 x 16 to scores [N, num_classes].

    Channels (32, 64), (128, 256), (384, 384), (512, 512), then four times (width, width). `width` 512 is Dec8, 640
    and 768 are Dec8-640 and Dec8-768. Where the published network pools is not stated; here a max-pool 2 x 2 follows
    the first, second and fourth pair, and the global average stands before the classifier. Weights are few enough to
    tell: the published 46.73 % of parameters for the width 768 are met by the pairs and the classifier alone.

    With `skips`, further pairs of `width` channels with a skip around each stand behind the seventh and the eighth
    pair (GTC 2019, slides 70 to 72: Dec7-1, Dec7-2, Dec8-1, Dec8-2): `skips: [2, 2]` puts two behind each. A pair
    whose units all become zero is bypassed: the depth is learned too.

    Raises:
        RecipeError: a width or numbers of skipped pairs that give no network.
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
    """Dec3-M for characters: three pairs (48, 96) k 9, (160, 256) k 9, (M, M) k 8, and scores [N, num_classes].

    `width` 512 on grey images is the published network, 3.70 M weights in its convolutions. Images are [N,
    in_channels, H, W] from 16 x 16. As for Dec8 the pools are ours: max-pool 2 x 2 after the first two pairs.
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
