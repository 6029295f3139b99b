"""Small networks with what deployment trips over: two inputs, dictionaries, upsampling, frozen batches."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class Segmenter(nn.Module):
    """Strided, transposed and resized: an encoder and decoder for [N, 3, H, W]."""

    def __init__(self, width: int = 8, num_classes: int = 5) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, width, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.mix = nn.Conv2d(width, width, (3, 1), padding=(1, 0))
        self.up = nn.ConvTranspose2d(width, num_classes, 3, stride=2, padding=1, output_padding=1)
        self.dropout = nn.Dropout2d(0.5)

    def forward(self, image: Tensor) -> Tensor:
        features = self.dropout(functional.relu(self.norm(self.down(image))))
        return self.up(functional.relu(self.mix(features)))


class Fusion(nn.Module):
    """Two inputs, a dictionary of two outputs, one resized bilinearly and one with a single channel."""

    def __init__(self) -> None:
        super().__init__()
        self.camera = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.depth = nn.Conv2d(1, 6, 3, stride=2, padding=1)
        self.head = nn.Conv2d(6, 4, 1)
        self.edge = nn.Conv2d(6, 1, 1)

    def forward(self, image: Tensor, depth: Tensor) -> dict[str, Tensor]:
        features = functional.relu(self.camera(image) + self.depth(depth))
        size = image.shape[-2:]
        mask = functional.interpolate(self.head(features), size=size, mode="bilinear", align_corners=False)
        return {"mask": mask, "edge": self.edge(features)}


class FrozenBatch(nn.Module):
    """Writes the batch size of the example into its output's shape."""

    def forward(self, image: Tensor) -> Tensor:
        return image.reshape(2, -1)


class Branching(nn.Module):
    """Branches on a value, which no exporter can follow."""

    def forward(self, image: Tensor) -> Tensor:
        return image if image.sum() > 0 else image * 2


class NoOnnx(nn.Module):
    """Uses an operator that ONNX does not have."""

    def forward(self, image: Tensor) -> Tensor:
        return torch.linalg.svdvals(image)


def seeded(build: type[nn.Module], **arguments: int) -> nn.Module:
    """Build with fixed weights, and BN statistics that are not the identity's."""
    torch.manual_seed(0)
    model = build(**arguments)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -1, 1)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return model
