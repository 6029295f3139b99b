"""The small ImageNet network of ExpandNets (Guo, Alvarez, Salzmann, arXiv 1811.10495; GTC 2019, slide 97)."""

import itertools

import torch
from torch import Tensor, nn

from prunus.errors import RecipeError

GRID = 6  # the classifier reads GRID x GRID cells


class AlexNetLike(nn.Module):
    """Images [N, 3, H, W], 224 x 224 as published, to scores [N, num_classes].

    Convolutions 11 x 11 stride 4 (64), 5 x 5 (192), 3 x 3 (384), 3 x 3 (`width`), 3 x 3 (`width`) with ReLU; max-pool
    3 x 3 stride 2 after the first, second and fifth; then linear layers. `width` is the talk's N: 128, 256, 512. The
    linear layers are not published; here they are AlexNet's (Krizhevsky 2014), so that width 256 is AlexNet.

    Raises:
        RecipeError: a width is below 1.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        width: int = 256,
        hidden: tuple[int, ...] = (4096, 4096),
        dropout: float = 0.5,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        if min((width, *hidden)) < 1:
            raise RecipeError(f"AlexNetLike needs widths of at least 1, not {width} and {list(hidden)}")
        self.conv1 = nn.Conv2d(in_channels, 64, 11, stride=4, padding=2)
        self.conv2 = nn.Conv2d(64, 192, 5, padding=2)
        self.conv3 = nn.Conv2d(192, 384, 3, padding=1)
        self.conv4 = nn.Conv2d(384, width, 3, padding=1)
        self.conv5 = nn.Conv2d(width, width, 3, padding=1)
        self.pool = nn.MaxPool2d(3, stride=2)
        self.grid = nn.AdaptiveAvgPool2d(GRID)
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise((width * GRID * GRID, *hidden)):
            layers += [nn.Dropout(dropout), nn.Linear(before, after), nn.ReLU()]
        self.hidden = nn.Sequential(*layers)
        self.classifier = nn.Linear((width * GRID * GRID, *hidden)[-1], num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return the class scores before softmax."""
        features = self.pool(torch.relu(self.conv1(images)))
        features = self.pool(torch.relu(self.conv2(features)))
        features = torch.relu(self.conv4(torch.relu(self.conv3(features))))
        features = self.pool(torch.relu(self.conv5(features)))
        scores: Tensor = self.classifier(self.hidden(self.grid(features).flatten(1)))
        return scores
