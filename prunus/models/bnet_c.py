"""BNetC: the compact VGG-B of Alvarez & Salzmann, NIPS 2016.

VGG-B has ten 3 x 3 convolutions and three linear layers (Simonyan & Zisserman 2015, table 1, column B). BNetC omits the
first two linear layers, which hold most of the parameters and contribute little to the accuracy.
"""

from torch import Tensor, nn

from prunus.errors import RecipeError

VGG_B = (64, 128, 256, 512, 512)  # two convolutions of each width, then a max-pool


class BNetC(nn.Module):
    """Images [N, 3, H, W] from 32 x 32 to scores [N, num_classes].

    `width_multiplier` scales all channels. The classifier reads the features averaged to `grid` x `grid` cells: with
    224 x 224 images, 7 means no averaging; 1 is a global average.

    Raises:
        RecipeError: `width_multiplier` is not above 0, or `grid` is below 1.
    """

    def __init__(self, *, num_classes: int, width_multiplier: float = 1.0, grid: int = 7, in_channels: int = 3) -> None:
        super().__init__()
        if not width_multiplier > 0 or grid < 1:
            raise RecipeError(f"BNetC needs width_multiplier above 0 and grid from 1, not {width_multiplier}, {grid}")
        widths = [max(1, round(width * width_multiplier)) for width in VGG_B]
        layers: list[nn.Module] = []
        before = in_channels
        for width in widths:
            for channels in (before, width):
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            layers.append(nn.MaxPool2d(2))
            before = width
        for layer in layers:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        self.features = nn.Sequential(*layers)
        self.grid = nn.AdaptiveAvgPool2d(grid)
        self.classifier = nn.Linear(before * grid * grid, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return the class scores before softmax."""
        scores: Tensor = self.classifier(self.grid(self.features(images)).flatten(1))
        return scores
