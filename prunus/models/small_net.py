"""SmallNet: the small network of ExpandNets on CIFAR (Guo, Alvarez, Salzmann, NeurIPS 2020)."""

from typing import Literal

import torch
from torch import Tensor, nn

from prunus.errors import RecipeError

CHANNELS = (8, 16, 32)
FEATURES = 64


class SmallNet(nn.Module):
    """Images [N, 3, size, size] to scores [N, num_classes].

    Three convolutions of 8, 16 and 32 filters, each with BN, ReLU and max-pool 2 x 2, then linear layers of 64 and
    num_classes. `kernel` 3 has no padding, 7 is padded by 3. `image_size` (32 for CIFAR) determines the size of the
    first linear layer. The network is meant to be expanded, trained and contracted.

    Raises:
        RecipeError: the kernel is neither 3 nor 7, or the images are too small for the three pools.
    """

    def __init__(
        self, *, num_classes: int, kernel: Literal[3, 7] = 3, image_size: int = 32, in_channels: int = 3
    ) -> None:
        super().__init__()
        if kernel not in (3, 7):
            raise RecipeError(f"SmallNet has kernel 3 (without padding) or 7 (padded by 3), not {kernel}")
        padding = 3 if kernel == 7 else 0
        layers: list[nn.Module] = []
        before, size = in_channels, image_size
        for after in CHANNELS:
            conv = nn.Conv2d(before, after, kernel, padding=padding)
            layers += [conv, nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]
            before, size = after, (size + 2 * padding - kernel + 1) // 2
        if size < 1:
            raise RecipeError(f"SmallNet halves the image three times: image_size {image_size} is too small")
        self.features = nn.Sequential(*layers)
        self.hidden = nn.Linear(before * size * size, FEATURES)
        self.classifier = nn.Linear(FEATURES, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return the class scores before softmax."""
        scores: Tensor = self.classifier(torch.relu(self.hidden(self.features(images).flatten(1))))
        return scores
