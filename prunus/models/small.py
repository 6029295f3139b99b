"""Three small classifiers for examples and tests: plain, residual, depthwise-separable.

Each maps images [N, in_channels, H, W] of any size from 8 x 8 to class scores [N, num_classes].
"""

import itertools

import torch
from torch import Tensor, nn

from prunus.errors import RecipeError


def _conv_norm(in_channels: int, out_channels: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Return a 3x3 convolution and BN; the convolution has no bias, because BN has one."""
    conv = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels))


def _check_widths(widths: tuple[int, ...]) -> None:
    if not widths or min(widths) < 1:
        raise RecipeError(f"widths must name at least one layer of at least one channel, not {list(widths)}")


class ResidualBlock(nn.Module):
    """conv-BN-ReLU-conv-BN plus a skip (a 1x1 convolution and BN if the shape changes), then ReLU.

    He et al. 2016, fig. 2 left.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.first = _conv_norm(in_channels, out_channels, stride)
        self.second = _conv_norm(out_channels, out_channels)
        self.skip: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.skip = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Map [N, in, H, W] to [N, out, H/stride, W/stride]."""
        branch = self.second(torch.relu(self.first(input)))
        return torch.relu(branch + self.skip(input))


class _Classifier(nn.Module):
    """Features, global average, linear layer."""

    def __init__(self, features: nn.Sequential, num_features: int, num_classes: int) -> None:
        super().__init__()
        self.features = features
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(num_features, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return the class scores [N, num_classes] before softmax."""
        scores: Tensor = self.classifier(self.pool(self.features(images)).flatten(1))
        return scores


class PlainNet(_Classifier):
    """conv 3x3, BN, ReLU for each width; max-pool 2x2 after all but the last."""

    def __init__(self, *, num_classes: int, widths: tuple[int, ...] = (16, 32, 64), in_channels: int = 3) -> None:
        _check_widths(widths)
        layers: list[nn.Module] = []
        for before, after in zip((in_channels, *widths), widths, strict=False):
            layers += [_conv_norm(before, after), nn.ReLU(), nn.MaxPool2d(2)]
        super().__init__(nn.Sequential(*layers[:-1]), widths[-1], num_classes)


class ResidualNet(_Classifier):
    """A 3x3 stem and one `ResidualBlock` for each width; all but the first block halve the image."""

    def __init__(self, *, num_classes: int, widths: tuple[int, ...] = (16, 32, 64), in_channels: int = 3) -> None:
        _check_widths(widths)
        layers: list[nn.Module] = [_conv_norm(in_channels, widths[0]), nn.ReLU()]
        for index, (before, after) in enumerate(zip((widths[0], *widths), widths, strict=False)):
            layers.append(ResidualBlock(before, after, stride=1 if index == 0 else 2))
        super().__init__(nn.Sequential(*layers), widths[-1], num_classes)


class DepthwiseNet(_Classifier):
    """A strided 3x3 stem, then depthwise 3x3 and pointwise 1x1 for each further width, as in MobileNet.

    Howard et al. 2017, fig. 3; all depthwise convolutions but the first halve the image.
    """

    def __init__(self, *, num_classes: int, widths: tuple[int, ...] = (16, 32, 64), in_channels: int = 3) -> None:
        _check_widths(widths)
        layers: list[nn.Module] = [_conv_norm(in_channels, widths[0], stride=2), nn.ReLU()]
        for index, (before, after) in enumerate(itertools.pairwise(widths)):
            layers += [_conv_norm(before, before, stride=1 if index == 0 else 2, groups=before), nn.ReLU()]
            layers += [nn.Conv2d(before, after, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        super().__init__(nn.Sequential(*layers), widths[-1], num_classes)
