"""Blocks of random networks: each draws itself for [N, size, 6, 6] and says how many channels come out."""

import nets
import torch
from blocks_more import MORE
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

ACTIVATIONS = (nn.ReLU, nn.SiLU, nn.Identity, nn.GELU, nn.Tanh, nn.Sigmoid)


class Standardised(nn.Conv2d):
    """Weights of mean 0 for each output, as weight standardisation has it."""

    def forward(self, x):
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, weight, self.bias, padding=self.padding)


class Pixels(nn.Module):
    """A network of tokens on an image's pixels."""

    def __init__(self, inside):
        super().__init__()
        self.inside = inside

    def forward(self, x):
        return self.inside(x.flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(2, x.shape[2:])


class Repeated(nn.Module):
    """One convolution, called two times."""

    def __init__(self, size):
        super().__init__()
        self.inside = nets.conv(size, size)

    def forward(self, x):
        return self.inside(F.relu(self.inside(x)))


class InTraining(nn.Module):
    """Another branch in training."""

    def __init__(self, size):
        super().__init__()
        self.first, self.second = nets.conv(size, size, 1), nets.conv(size, size, 1)

    def forward(self, x):
        return self.second(x) + self.first(x) if self.training else self.first(x)


def function(call, size):
    return nets.Join(call, nn.Identity()), size


def narrow(draw, size):
    out = draw(st.sampled_from([4, 6, 8]))
    return nn.Sequential(nets.conv(size, out), draw(st.sampled_from(ACTIVATIONS))()), out


def strange(draw, size):
    """A convolution with something of its own."""
    kind = draw(st.sampled_from(["dilated", "reflected", "weight_norm", "spectral_norm", "standardised", "frozen"]))
    if kind == "dilated":
        return nn.Conv2d(size, 6, 3, padding=2, dilation=2), 6
    if kind == "standardised":
        return Standardised(size, 6, 3, padding=1), 6
    layer = nets.conv(size, 6, padding_mode="reflect" if kind == "reflected" else "zeros")
    if kind == "frozen":
        layer.requires_grad_(False)
    parametrised = {"weight_norm": weight_norm, "spectral_norm": spectral_norm}.get(kind)
    return (layer if parametrised is None else parametrised(layer)), 6


def normalised(draw, size):
    return nn.Sequential(nn.BatchNorm2d(size, affine=draw(st.booleans())), nn.ReLU()), size


def layer_normalised(draw, size):
    return nn.Sequential(Pixels(nn.LayerNorm(size)), nets.conv(size, 6, 1)), 6


def residual(draw, size):
    branch, out = stack(draw, size, 2)
    return nets.Join(nets.add, nn.Identity(), nn.Sequential(branch, nets.conv(out, size, 1))), size


def concat(draw, size):
    (first, one), (second, two) = stack(draw, size, 1), stack(draw, size, 1)
    return nets.Join(nets.concat, first, second), one + two


def depthwise(draw, size):
    return nn.Sequential(nets.conv(size, 2 * size, groups=size), nn.ReLU()), 2 * size


def grouped(draw, size):
    return (nets.conv(size, size, groups=2), size) if size % 2 == 0 else (nn.Identity(), size)


def excited(draw, size):
    return nets.SqueezeExcite(size, 3), size


def scaled(draw, size):
    return nets.Scaled(size), size


def shuffled(draw, size):
    kind = draw(st.sampled_from([lambda: nn.ChannelShuffle(2), lambda: nets.WrittenShuffle(size, 2)]))
    return (kind(), size) if size % 2 == 0 else (nn.Identity(), size)


def gated(draw, size):
    return (nn.GLU(1), size // 2) if size % 2 == 0 else (nn.Identity(), size)


def pixel_shuffled(draw, size):
    if size % 4:
        return nn.Identity(), size
    return nn.Sequential(nn.PixelShuffle(2), nn.AvgPool2d(2)), size // 4


def focused(draw, size):
    """Space to depth, and back to the size of the image."""
    return nn.Sequential(nn.PixelUnshuffle(2), nets.conv(4 * size, 6, 1), nn.Upsample(scale_factor=2)), 6


def transposed(draw, size):
    groups = draw(st.sampled_from([1, size]))
    return nn.ConvTranspose2d(size, size, 3, padding=1, groups=groups), size


def group_normalised(draw, size):
    return nn.GroupNorm(draw(st.sampled_from([1, 2 - size % 2, size])), size, affine=draw(st.booleans())), size


def attention(draw, size):
    heads = draw(st.sampled_from([1, 2]))
    tokens = nn.Sequential(nn.Linear(size, 4 * heads), nets.Attention(4 * heads, heads), nn.Linear(4 * heads, size))
    return nets.Join(nets.add, nn.Identity(), Pixels(tokens)), size


def sliced(draw, size):
    """Parts of the channels: computed from the width, or hard-coded."""
    half = size // 2
    if size % 2 or size < 4:
        return nn.Identity(), size
    kind = draw(st.sampled_from(["halves", "written", "chunks", "split"]))
    if kind == "halves":
        return nets.Join(lambda x: x[:, : x.shape[1] // 2] * x[:, x.shape[1] // 2 :], nn.Identity()), half
    if kind == "written":
        return nets.Join(lambda x: x[:, :half] + 1, nn.Identity()), half
    if kind == "chunks":
        return nets.Join(lambda x: torch.cat([F.relu(part) for part in x.chunk(2, 1)][::-1], 1), nn.Identity()), size
    return nets.Join(lambda x: sum(torch.split(x, [half, half], 1)), nn.Identity()), half


def reshaped(draw, size):
    """Views whose sizes follow, or do not."""
    kind = draw(st.sampled_from(["follows", "written", "summed", "normalised", "filled"]))
    calls = {
        "follows": lambda x: x.view(x.shape[0], x.shape[1], -1).relu().view(x.shape),
        "written": lambda x: x.view(2, size, 36).relu().view(2, size, 6, 6),
        "summed": lambda x: x * x.sum(1, keepdim=True).tanh(),
        "normalised": lambda x: F.normalize(x, dim=1),
        "filled": lambda x: x + torch.zeros(x.shape[1], 1, 1, dtype=x.dtype),
    }
    return function(calls[kind], size)


def repeated(draw, size):
    return Repeated(size), size


def in_training(draw, size):
    return InTraining(size), size


BLOCKS = (
    *(narrow, strange, normalised, layer_normalised, residual, concat, depthwise, grouped, excited, scaled, shuffled),
    *(gated, pixel_shuffled, focused, transposed, group_normalised, attention, sliced, reshaped, repeated),
    *(in_training, *MORE),
)


def stack(draw, size, num):
    """Return `num` blocks behind each other and their output's channels."""
    parts = []
    for _ in range(num):
        part, size = draw(st.sampled_from(BLOCKS))(draw, size)
        parts.append(part)
    return nn.Sequential(*parts), size
