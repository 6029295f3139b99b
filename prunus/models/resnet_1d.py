"""ResNet-50*: ResNet-50 whose 3 x 3 convolutions are factorised into 3 x 1 and 1 x 3.

GTC 2019, slide 84; Alvarez & Salzmann, NIPS 2017. The bottleneck is 1 x 1, 3 x 1, 1 x 3, 1 x 1; the network has
21.78 M parameters, ResNet-50 has 25.56 M.
"""

import torch
from torch import Tensor, nn

from prunus.errors import RecipeError

EXPANSION = 4
RESNET_50 = (3, 4, 6, 3)


def _norm_conv(in_channels: int, out_channels: int, kernel: tuple[int, int], stride: tuple[int, int]) -> nn.Sequential:
    """Return a convolution that keeps the shape at stride 1, followed by BN."""
    padding = (kernel[0] // 2, kernel[1] // 2)
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride=stride, padding=padding, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels))


class Bottleneck1d(nn.Module):
    """1 x 1, BN, ReLU, 3 x 1, ReLU, 1 x 3, BN, ReLU, 1 x 1, BN, plus a skip; then ReLU.

    The 3 x 1 has the vertical stride, the 1 x 3 the horizontal stride. As in ERFNet, there is no BN between the two,
    which gives the published 21.78 M parameters.
    """

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        out_channels = EXPANSION * width
        self.reduce = _norm_conv(in_channels, width, (1, 1), (1, 1))
        self.vertical = nn.Conv2d(width, width, (3, 1), stride=(stride, 1), padding=(1, 0), bias=False)
        self.horizontal = _norm_conv(width, width, (1, 3), (1, stride))
        self.expand = _norm_conv(width, out_channels, (1, 1), (1, 1))
        self.skip: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.skip = _norm_conv(in_channels, out_channels, (1, 1), (stride, stride))

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Map [N, in, H, W] to [N, 4 width, H/stride, W/stride]."""
        branch = torch.relu(self.reduce(input))
        branch = torch.relu(self.vertical(branch))
        branch = torch.relu(self.horizontal(branch))
        return torch.relu(self.expand(branch) + self.skip(input))


class ResNet1d(nn.Module):
    """ResNet-50* by default: images [N, 3, H, W] from 32 x 32 to scores [N, num_classes].

    `blocks` is the number of bottlenecks in each stage, `width` that of the first stage. From stage to stage the width
    doubles and the resolution halves.

    Raises:
        RecipeError: there is no stage, a stage without blocks, or `width` is below 1.
    """

    def __init__(
        self, *, num_classes: int, blocks: tuple[int, ...] = RESNET_50, width: int = 64, in_channels: int = 3
    ) -> None:
        super().__init__()
        if not blocks or min(blocks) < 1 or width < 1:
            raise RecipeError(
                f"ResNet1d needs at least one block a stage and a width of at least 1, not {list(blocks)}, {width}"
            )
        self.stem = _norm_conv(in_channels, width, (7, 7), (2, 2))
        self.stem_pool = nn.MaxPool2d(3, stride=2, padding=1)
        stages: list[nn.Module] = []
        before = width
        for stage, count in enumerate(blocks):
            for block in range(count):
                stride = 2 if stage > 0 and block == 0 else 1
                stages.append(Bottleneck1d(before, width * 2**stage, stride))
                before = EXPANSION * width * 2**stage
        self.stages = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(before, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return the class scores before softmax."""
        features = self.stages(self.stem_pool(torch.relu(self.stem(images))))
        scores: Tensor = self.classifier(self.pool(features).flatten(1))
        return scores
