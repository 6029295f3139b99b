"""ERFNet: a fast segmentation network of factorised residual blocks.

Romera, Alvarez, Bergasa, Arroyo, "ERFNet: Efficient Residual Factorized ConvNet for Real-time Semantic
Segmentation", IV 2017 and T-ITS 2018. Built from the layer table in these papers.
"""

import torch
from torch import Tensor, nn

from prunus.errors import RecipeError

STRIDE = 8  # of the encoder: three Downsamplers
BATCH_NORM_EPSILON = 1e-3


class Downsampler(nn.Module):
    """[N, in, H, W] to [N, out, H/2, W/2]: a strided convolution concatenated with a max-pool, BN, ReLU.

    The pool provides `in` channels, the convolution the other `out - in`.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels - in_channels, 3, stride=2, padding=1)
        self.pool = nn.MaxPool2d(2, stride=2)
        self.norm = nn.BatchNorm2d(out_channels, eps=BATCH_NORM_EPSILON)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Halve height and width; both must be even."""
        return torch.relu(self.norm(torch.cat([self.conv(input), self.pool(input)], dim=1)))


class NonBottleneck1d(nn.Module):
    """Two 3x3 convolutions, each factorised into 3x1 and 1x3, with a skip around them; the shape is unchanged.

    The second pair is dilated by `dilation`; dropout drops whole channels of the residual branch.
    """

    def __init__(self, channels: int, dropout: float, dilation: int) -> None:
        super().__init__()
        self.conv1_vertical = nn.Conv2d(channels, channels, (3, 1), padding=(1, 0))
        self.conv1_horizontal = nn.Conv2d(channels, channels, (1, 3), padding=(0, 1))
        self.norm1 = nn.BatchNorm2d(channels, eps=BATCH_NORM_EPSILON)
        self.conv2_vertical = nn.Conv2d(channels, channels, (3, 1), padding=(dilation, 0), dilation=(dilation, 1))
        self.conv2_horizontal = nn.Conv2d(channels, channels, (1, 3), padding=(0, dilation), dilation=(1, dilation))
        self.norm2 = nn.BatchNorm2d(channels, eps=BATCH_NORM_EPSILON)
        self.dropout = nn.Dropout2d(dropout) if dropout > 0 else nn.Identity()

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Map [N, C, H, W] to the same shape."""
        output = torch.relu(self.conv1_vertical(input))
        output = torch.relu(self.norm1(self.conv1_horizontal(output)))
        output = torch.relu(self.conv2_vertical(output))
        output = self.dropout(self.norm2(self.conv2_horizontal(output)))
        return torch.relu(output + input)


class Upsampler(nn.Module):
    """[N, in, H, W] to [N, out, 2H, 2W]: transposed convolution 3x3, BN, ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(in_channels, out_channels, 3, stride=2, padding=1, output_padding=1)
        self.norm = nn.BatchNorm2d(out_channels, eps=BATCH_NORM_EPSILON)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Double height and width."""
        return torch.relu(self.norm(self.conv(input)))


def scaled_widths(width_multiplier: float) -> tuple[int, int, int]:
    """Return the channels at 1/2, 1/4 and 1/8 resolution: 16, 64, 128 times the multiplier, rounded to multiples of 8.

    Raises:
        RecipeError: the multiplier is so small that a Downsampler would add no channel.
    """
    first, second, third = (max(8, round(width * width_multiplier / 8) * 8) for width in (16, 64, 128))
    if not first < second < third:
        raise RecipeError(
            f"ERFNet cannot be built with width_multiplier={width_multiplier}: it gives {first}, {second} "
            f"and {third} channels, and each Downsampler must add some; 0.25 is a safe smallest multiplier"
        )
    return first, second, third


def _encoder(widths: tuple[int, int, int], dropout_early: float, dropout_late: float) -> nn.Sequential:
    first, second, third = widths
    return nn.Sequential(
        Downsampler(3, first),
        Downsampler(first, second),
        *[NonBottleneck1d(second, dropout_early, dilation=1) for _ in range(5)],
        Downsampler(second, third),
        *[NonBottleneck1d(third, dropout_late, dilation) for _ in range(2) for dilation in (2, 4, 8, 16)],
    )


def _decoder(widths: tuple[int, int, int], num_classes: int) -> nn.Sequential:
    first, second, third = widths
    return nn.Sequential(
        Upsampler(third, second),
        *[NonBottleneck1d(second, dropout=0.0, dilation=1) for _ in range(2)],
        Upsampler(second, first),
        *[NonBottleneck1d(first, dropout=0.0, dilation=1) for _ in range(2)],
        nn.ConvTranspose2d(first, num_classes, 2, stride=2),
    )


class ERFNet(nn.Module):
    """Images [N, 3, H, W], H and W multiples of 8, to class scores [N, num_classes, H, W].

    `width_multiplier` scales the channels 16, 64, 128 (to multiples of 8, at least 8). `dropout_early` and
    `dropout_late` are the rates of the blocks at 1/4 and at 1/8 resolution.

    With `encoder_only` a 1x1 convolution replaces the decoder, and the scores have 1/8 resolution: the first stage of
    the published two-stage training. The second stage starts from the trained encoder:
    `full.encoder.load_state_dict(first_stage.encoder.state_dict())`.

    Raises:
        RecipeError: invalid settings, or an image whose height or width is not a multiple of 8.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        width_multiplier: float = 1.0,
        dropout_early: float = 0.03,
        dropout_late: float = 0.3,
        encoder_only: bool = False,
    ) -> None:
        super().__init__()
        if num_classes < 1:
            raise RecipeError(f"ERFNet needs num_classes of at least 1, not {num_classes}")
        widths = scaled_widths(width_multiplier)
        self.encoder = _encoder(widths, dropout_early, dropout_late)
        self.decoder: nn.Module = (
            nn.Conv2d(widths[-1], num_classes, 1) if encoder_only else _decoder(widths, num_classes)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return the class scores before softmax."""
        height, width = images.shape[-2:]
        if height % STRIDE or width % STRIDE:
            raise RecipeError(
                f"ERFNet halves the image three times, so height and width must be multiples of {STRIDE}; "
                f"got {height} x {width}: crop or resize the images (the data's `size`)"
            )
        scores: Tensor = self.decoder(self.encoder(images))
        return scores
