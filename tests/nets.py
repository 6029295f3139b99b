"""A zoo of tiny networks: one idiom each, with its groups, multiply-adds and parameters worked out by hand.

`CASES` is the registry that the laws run over: a case that is added inherits them all. Images are [2, 3, 6, 6]
where nothing else is said, so that N * H * W = 72; `head(n)` is a global average and Linear(n, 2).
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

POSITIONS = 2 * 6 * 6


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """One network and what is known of it."""

    build: Callable[[], nn.Module]
    shapes: tuple[tuple[int, ...], ...] = ((2, 3, 6, 6),)
    exact: int  # groups
    approximate: int = 0
    macs: int  # in evaluation, for the inputs of `shapes`
    params: int
    random: bool = False  # draws numbers in training mode

    def model(self, dtype: torch.dtype = torch.float64, seed: int = 0) -> nn.Module:
        """Return the network with every parameter and statistic drawn anew."""
        return randomised(self.build(), seed).to(dtype)

    def inputs(self, dtype: torch.dtype = torch.float64, seed: int = 0) -> tuple[Tensor, ...]:
        """Return inputs."""
        generator = torch.Generator().manual_seed(seed)
        return tuple(torch.randn(shape, generator=generator, dtype=dtype) for shape in self.shapes)


@torch.no_grad()
def randomised(model: nn.Module, seed: int) -> nn.Module:
    """Draw every parameter and buffer in place: BatchNorm's freshly built zeros and ones would hide errors."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_floating_point():
            values = torch.randn(tensor.shape, generator=generator)
            tensor.copy_(values.abs() + 0.5 if name.endswith("running_var") else values)
    return model


def state(model: nn.Module) -> dict[str, Any]:
    """Return all that an edit must leave alone: values, modes, requires_grad, identity of what is tied."""
    named = (*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False))
    return {
        "values": {path: (id(tensor), tensor.detach().clone(), tensor.requires_grad) for path, tensor in named},
        "modes": {path: module.training for path, module in model.named_modules()},
        "repr": repr(model),
    }


def assert_same_state(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Compare two of `state`."""
    assert before["modes"] == after["modes"] and before["repr"] == after["repr"]
    assert before["values"].keys() == after["values"].keys()
    for path, (identity, tensor, grad) in before["values"].items():
        other = after["values"][path]
        assert identity == other[0] and grad == other[2] and torch.equal(tensor, other[1]), path


def outputs(result: Any) -> list[Tensor]:
    """Return the tensors of an output, containers opened."""
    if isinstance(result, Tensor):
        return [result]
    items = result.values() if isinstance(result, dict) else result
    return [tensor for item in items for tensor in outputs(item)]


def head(channels: int, rank: int = 2) -> list[nn.Module]:
    """Global average, two scores: 2 * channels * 2 MACs, 2 * channels + 2 parameters."""
    pool = {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}[rank]
    return [pool(1), nn.Flatten(), nn.Linear(channels, 2)]


class Join(nn.Module):
    """Runs `parts` on inputs (each on its own where there are several), then `join` on their outputs."""

    def __init__(self, join: Callable[..., Any], *parts: nn.Module) -> None:
        super().__init__()
        self.join, self.parts = join, nn.ModuleList(parts)

    def forward(self, *inputs: Tensor) -> Any:
        images = inputs if len(inputs) > 1 else inputs * len(self.parts)
        return self.join(*[part(image) for part, image in zip(self.parts, images, strict=True)])


def add(first: Tensor, second: Tensor) -> Tensor:
    return first + second


def concat(*tensors: Tensor) -> Tensor:
    return torch.cat(tensors, 1)


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.squeeze, self.excite = nn.Conv2d(channels, hidden, 1), nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean((2, 3), keepdim=True)))))


class Twice(nn.Module):
    """One convolution, called two times."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.shared = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 6, 3, padding=1)
        self.head = nn.Sequential(*head(6))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.shared(F.relu(self.shared(F.relu(self.stem(x)))))))


class TiedAutoencoder(nn.Module):
    """The decoder's weight is the encoder's, transposed: it makes the hidden channels and reads them."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.zeros(6, 4)), nn.Parameter(torch.zeros(6))
        self.out = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.linear(F.relu(F.linear(x, self.weight, self.bias)), self.weight.t()))


class TiedLayers(nn.Module):
    """Two modules hold one weight; the second one's path comes later."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 1)
        self.first = nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False)
        self.second = nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False)
        self.second.weight = self.first.weight
        self.head = nn.Sequential(*head(6))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.second(F.relu(self.first(self.stem(x))))))


class C2f(nn.Module):
    """Split in two, work on the second half, put all three behind each other (Ultralytics' C2f)."""

    def __init__(self, *, shortcut: bool) -> None:
        super().__init__()
        self.shortcut = shortcut
        self.first, self.inner = nn.Conv2d(3, 8, 1), nn.Conv2d(4, 4, 3, padding=1)
        self.last, self.head = nn.Conv2d(12, 5, 1), nn.Sequential(*head(5))

    def forward(self, x: Tensor) -> Tensor:
        parts = list(F.relu(self.first(x)).chunk(2, 1))
        new = F.relu(self.inner(parts[-1]))
        parts.append(parts[-1] + new if self.shortcut else new)
        return self.head(F.relu(self.last(torch.cat(parts, 1))))


class Auxiliary(nn.Module):
    """A second head that only runs in training."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 6, 1), nn.Sequential(*head(6))
        self.aux = nn.Sequential(nn.Conv2d(6, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), *head(4))

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        x = F.relu(self.stem(x))
        return (self.head(x), self.aux(x)) if self.training else self.head(x)


class DeepSupervision(nn.Module):
    """What the head reads is an output of its own in training: no parameter is used more or less."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 5, 1)
        self.head, self.drop = nn.Sequential(*head(5)), nn.Dropout(0.0)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        y = self.body(self.drop(F.relu(self.stem(x))))
        return (self.head(F.relu(y)), y) if self.training else self.head(F.relu(y))


class TwoInputs(nn.Module):
    """Two images, one sum."""

    def __init__(self) -> None:
        super().__init__()
        self.stems, self.head = Join(add, conv(3, 6, 1), conv(1, 6, 1)), nn.Sequential(*head(6))

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return self.head(F.relu(self.stems(first, second)))


class Heads(nn.Module):
    """A dictionary of outputs, one of them a list."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.two = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 2, 1), nn.Conv2d(6, 3, 1)

    def forward(self, x: Tensor) -> dict[str, Any]:
        x = F.relu(self.stem(x))
        return {"one": self.one(x), "rest": [self.two(x)]}


class Scaled(nn.Module):
    """x * scale + shift, channel by channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.ones(channels, 1, 1)), nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.shift


class Product(nn.Module):
    """a b^T, and b is read by another layer too: both must be zero."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.read = nn.Linear(5, 6), nn.Linear(5, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        a, b = self.a(x), self.b(x)
        return a @ b.transpose(-1, -2), self.read(b)


class Matrices(nn.Module):
    """Weights as plain matrices on the right, a sigmoid between: the second one is no reason to call it exact."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Parameter(torch.zeros(4, 6)), nn.Parameter(torch.zeros(6, 3))

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x @ self.first) @ self.second


class WrittenShuffle(nn.Module):
    """Channel shuffle with its sizes hard-coded as attributes, as ShuffleNets have it."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.groups, self.per_group = groups, channels // groups

    def forward(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        return x.view(n, self.groups, self.per_group, h, w).transpose(1, 2).reshape(n, -1, h, w)


class Attention(nn.Module):
    """Two heads from one fused projection; the head's size is an attribute, the scale is hard-coded."""

    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.num_heads, self.head_size, self.scale = heads, size // heads, (size // heads) ** -0.5
        self.qkv, self.out = nn.Linear(size, 3 * size), nn.Linear(size, size)

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, _ = x.shape
        q, k, v = self.qkv(x).reshape(n, tokens, 3, self.num_heads, self.head_size).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v, scale=self.scale)
        return self.out(y.transpose(1, 2).reshape(n, tokens, self.num_heads * self.head_size))


def conv(inner: int, outer: int, size: int = 3, **settings: Any) -> nn.Conv2d:
    return nn.Conv2d(inner, outer, size, padding=size // 2, **settings)


def sequence(*parts: nn.Module, channels: int) -> nn.Sequential:
    return nn.Sequential(*parts, *head(channels))


def residual() -> nn.Module:
    branch = nn.Sequential(
        conv(6, 5, bias=False), nn.BatchNorm2d(5), nn.ReLU(), conv(5, 6, bias=False), nn.BatchNorm2d(6)
    )
    return sequence(conv(3, 6), Join(add, nn.Identity(), branch), nn.ReLU(), channels=6)


def frozen() -> nn.Module:
    model = sequence(conv(3, 6), nn.ReLU(), conv(6, 5), nn.ReLU(), channels=5)
    model[0].requires_grad_(False)
    return model


HEAD5 = (2 * 5 * 2, 5 * 2 + 2)  # MACs, parameters of head(5)
HEAD6 = (2 * 6 * 2, 6 * 2 + 2)
P = POSITIONS
STEM6 = (P * 3 * 6, 3 * 6 + 6)  # a 1x1 convolution from the image to six channels

CASES: dict[str, Case] = {
    "plain": Case(
        build=lambda: sequence(conv(3, 8), nn.ReLU(), nn.MaxPool2d(2), conv(8, 5), nn.ReLU(), channels=5),
        exact=8 + 5,
        macs=P * 9 * 3 * 8 + P // 4 * 9 * 8 * 5 + HEAD5[0],
        params=(9 * 3 * 8 + 8) + (9 * 8 * 5 + 5) + HEAD5[1],
    ),
    "dilated": Case(
        build=lambda: sequence(
            nn.Conv2d(3, 6, 3, dilation=2, padding=2, padding_mode="reflect"), nn.SiLU(), channels=6
        ),
        exact=6,
        macs=P * 9 * 3 * 6 + HEAD6[0],
        params=9 * 3 * 6 + 6 + HEAD6[1],
    ),
    "conv1d": Case(
        build=lambda: nn.Sequential(nn.Conv1d(3, 6, 3), nn.BatchNorm1d(6), nn.GELU(), *head(6, 1)),
        shapes=((2, 3, 9),),
        exact=6,
        macs=2 * 7 * 3 * 3 * 6 + HEAD6[0],
        params=(3 * 3 * 6 + 6) + 2 * 6 + HEAD6[1],
    ),
    "conv3d": Case(
        build=lambda: nn.Sequential(nn.Conv3d(3, 6, 2), nn.BatchNorm3d(6), nn.Hardswish(), *head(6, 3)),
        shapes=((2, 3, 3, 3, 3),),
        exact=6,
        macs=2 * 8 * 8 * 3 * 6 + HEAD6[0],
        params=(8 * 3 * 6 + 6) + 2 * 6 + HEAD6[1],
    ),
    "residual": Case(
        build=residual,
        exact=6 + 5,
        macs=P * 9 * (3 * 6 + 6 * 5 + 5 * 6) + HEAD6[0],
        params=(9 * 3 * 6 + 6) + (9 * 6 * 5 + 10) + (9 * 5 * 6 + 12) + HEAD6[1],
    ),
    "depthwise": Case(
        build=lambda: sequence(
            conv(3, 4), nn.BatchNorm2d(4), nn.ReLU6(), conv(4, 4, groups=4, bias=False), conv(4, 5, 1), channels=5
        ),
        exact=4 + 5,
        macs=P * (9 * 3 * 4 + 9 * 4 + 4 * 5) + HEAD5[0],
        params=(9 * 3 * 4 + 4) + 8 + 9 * 4 + (4 * 5 + 5) + HEAD5[1],
    ),
    "depthwise_multiplier": Case(
        build=lambda: sequence(conv(3, 4), nn.ReLU(), conv(4, 12, groups=4), nn.ReLU(), conv(12, 5, 1), channels=5),
        exact=4 + 5,  # three outputs go with each input
        macs=P * (9 * 3 * 4 + 9 * 12 + 12 * 5) + HEAD5[0],
        params=(9 * 3 * 4 + 4) + (9 * 12 + 12) + (12 * 5 + 5) + HEAD5[1],
    ),
    "grouped": Case(
        build=lambda: sequence(conv(3, 8), nn.ReLU(), conv(8, 6, groups=2), nn.ReLU(), channels=6),
        exact=4 + 3,  # one channel of either group at a time
        macs=P * (9 * 3 * 8 + 9 * 4 * 6) + HEAD6[0],
        params=(9 * 3 * 8 + 8) + (9 * 4 * 6 + 6) + HEAD6[1],
    ),
    "concat": Case(
        build=lambda: sequence(Join(concat, conv(3, 4), conv(3, 5, 1)), nn.ReLU(), conv(9, 6), channels=6),
        exact=4 + 5 + 6,
        macs=P * (9 * 3 * 4 + 3 * 5 + 9 * 9 * 6) + HEAD6[0],
        params=(9 * 3 * 4 + 4) + (3 * 5 + 5) + (9 * 9 * 6 + 6) + HEAD6[1],
    ),
    "transposed": Case(
        build=lambda: sequence(
            conv(3, 6, 1), nn.ReLU(), nn.ConvTranspose2d(6, 5, 2, stride=2), nn.BatchNorm2d(5), nn.ReLU(), channels=5
        ),
        exact=6 + 5,
        macs=STEM6[0] + P * 4 * 6 * 5 + HEAD5[0],
        params=STEM6[1] + (4 * 6 * 5 + 5) + 10 + HEAD5[1],
    ),
    "transposed_grouped": Case(
        build=lambda: sequence(
            conv(3, 6, 1), nn.ReLU(), nn.ConvTranspose2d(6, 4, 2, groups=2), nn.ReLU(), conv(4, 5, 1), channels=5
        ),
        exact=3 + 2 + 5,
        macs=STEM6[0] + P * 4 * 3 * 4 + 2 * 49 * 4 * 5 + HEAD5[0],
        params=STEM6[1] + (4 * 6 * 2 + 4) + (4 * 5 + 5) + HEAD5[1],
    ),
    "transposed_depthwise": Case(
        build=lambda: sequence(
            conv(3, 6, 1), nn.ConvTranspose2d(6, 6, 2, groups=6), nn.ReLU(), conv(6, 5, 1), channels=5
        ),
        exact=6 + 5,
        macs=STEM6[0] + P * 4 * 6 + 2 * 49 * 6 * 5 + HEAD5[0],
        params=STEM6[1] + (4 * 6 + 6) + (6 * 5 + 5) + HEAD5[1],
    ),
    "batch_norm_without_affine": Case(
        build=lambda: sequence(conv(3, 6, 1), nn.BatchNorm2d(6, affine=False), nn.ReLU(), channels=6),
        exact=6,
        macs=STEM6[0] + HEAD6[0],
        params=STEM6[1] + HEAD6[1],
    ),
    "flatten": Case(
        build=lambda: nn.Sequential(
            conv(3, 6, 1), nn.ReLU(), nn.Flatten(), nn.Linear(216, 5), nn.ReLU(), nn.Linear(5, 2)
        ),
        exact=6 + 5,
        macs=STEM6[0] + 2 * 216 * 5 + HEAD5[0],
        params=STEM6[1] + (216 * 5 + 5) + HEAD5[1],
    ),
    "squeeze_excite": Case(
        build=lambda: sequence(conv(3, 6, 1), nn.ReLU(), SqueezeExcite(6, 4), channels=6),
        exact=6 + 4,
        macs=STEM6[0] + 2 * (6 * 4 + 4 * 6) + HEAD6[0],
        params=STEM6[1] + (6 * 4 + 4) + (4 * 6 + 6) + HEAD6[1],
    ),
    "shared": Case(
        build=Twice,
        exact=6,
        macs=STEM6[0] + 2 * P * 9 * 6 * 6 + HEAD6[0],
        params=STEM6[1] + (9 * 6 * 6 + 6) + HEAD6[1],
    ),
    "tied_transposed": Case(
        build=TiedAutoencoder,
        shapes=((2, 4),),
        exact=6,
        macs=2 * (4 * 6 + 6 * 4 + 4 * 3),
        params=(4 * 6 + 6) + (4 * 3 + 3),
    ),
    "tied_layers": Case(
        build=TiedLayers,
        exact=6,
        macs=STEM6[0] + 2 * P * 9 * 6 + HEAD6[0],
        params=STEM6[1] + 9 * 6 + HEAD6[1],
    ),
    "dropout": Case(
        build=lambda: sequence(conv(3, 6, 1), nn.Dropout2d(0.5), nn.ReLU(), nn.Dropout(0.3), channels=6),
        exact=6,
        macs=STEM6[0] + HEAD6[0],
        params=STEM6[1] + HEAD6[1],
        random=True,
    ),
    "frozen": Case(
        build=frozen,
        exact=6 + 5,
        macs=P * 9 * (3 * 6 + 6 * 5) + HEAD5[0],
        params=(9 * 3 * 6 + 6) + (9 * 6 * 5 + 5) + HEAD5[1],
    ),
    "c2f": Case(
        build=lambda: C2f(shortcut=True),
        exact=4 + 5,  # both halves and what is added to the second go together
        macs=P * (3 * 8 + 9 * 4 * 4 + 12 * 5) + HEAD5[0],
        params=(3 * 8 + 8) + (9 * 4 * 4 + 4) + (12 * 5 + 5) + HEAD5[1],
    ),
    "c2f_without_shortcut": Case(
        build=lambda: C2f(shortcut=False),
        exact=4 + 4 + 5,
        macs=P * (3 * 8 + 9 * 4 * 4 + 12 * 5) + HEAD5[0],
        params=(3 * 8 + 8) + (9 * 4 * 4 + 4) + (12 * 5 + 5) + HEAD5[1],
    ),
    "auxiliary_head": Case(
        build=Auxiliary,
        exact=6 + 4,
        macs=STEM6[0] + HEAD6[0],  # in evaluation
        params=STEM6[1] + HEAD6[1] + (6 * 4 + 4) + 8 + (4 * 2 + 2),
    ),
    "deep_supervision": Case(
        build=DeepSupervision,
        exact=6,  # the body's channels are an output in training
        macs=STEM6[0] + P * 6 * 5 + HEAD5[0],  # in evaluation
        params=STEM6[1] + (6 * 5 + 5) + HEAD5[1],
    ),
    "two_inputs": Case(
        build=TwoInputs,
        shapes=((2, 3, 6, 6), (2, 1, 6, 6)),
        exact=6,
        macs=STEM6[0] + P * 6 + HEAD6[0],
        params=STEM6[1] + (6 + 6) + HEAD6[1],
    ),
    "dictionary": Case(
        build=Heads,
        exact=6,
        macs=STEM6[0] + P * 6 * (2 + 3),
        params=STEM6[1] + (6 * 2 + 2) + (6 * 3 + 3),
    ),
    "pixel_shuffle": Case(
        build=lambda: sequence(conv(3, 8, 1), nn.PixelShuffle(2), nn.ReLU(), conv(2, 5, 1), channels=5),
        exact=2 + 5,
        macs=P * 3 * 8 + 4 * P * 2 * 5 + HEAD5[0],
        params=(3 * 8 + 8) + (2 * 5 + 5) + HEAD5[1],
    ),
    "channel_shuffle": Case(
        build=lambda: sequence(conv(3, 6, 1), nn.ChannelShuffle(2), conv(6, 5, 1), channels=5),
        exact=3 + 5,
        macs=STEM6[0] + P * 6 * 5 + HEAD5[0],
        params=STEM6[1] + (6 * 5 + 5) + HEAD5[1],
    ),
    "written_shuffle": Case(
        build=lambda: sequence(conv(3, 6, 1), WrittenShuffle(6, 2), conv(6, 5, 1), channels=5),
        exact=3 + 5,
        macs=STEM6[0] + P * 6 * 5 + HEAD5[0],
        params=STEM6[1] + (6 * 5 + 5) + HEAD5[1],
    ),
    "attention": Case(
        build=lambda: nn.Sequential(nn.Linear(8, 8), Attention(8, 2), nn.Linear(8, 3)),
        shapes=((2, 5, 8),),
        exact=8 + 4 + 8,  # one position of each head of q, k and v at a time
        macs=2 * 5 * (8 * 8 + 8 * 24 + 8 * 8 + 8 * 3) + 2 * (2 * 2 * 5 * 5 * 4),
        params=(8 * 8 + 8) + (8 * 24 + 24) + (8 * 8 + 8) + (8 * 3 + 3),
    ),
    "matrices": Case(
        build=Matrices,
        shapes=((2, 3, 4),),
        exact=0,
        approximate=6,
        macs=2 * 3 * (4 * 6 + 6 * 3),
        params=4 * 6 + 6 * 3,
    ),
    "scaled": Case(
        build=lambda: sequence(conv(3, 6, 1), Scaled(6), nn.PReLU(6), channels=6),
        exact=6,
        macs=STEM6[0] + HEAD6[0],
        params=STEM6[1] + 3 * 6 + HEAD6[1],
    ),
    "glu": Case(
        build=lambda: sequence(conv(3, 10, 1), nn.GLU(1), channels=5),
        exact=5,
        macs=P * 3 * 10 + HEAD5[0],
        params=(3 * 10 + 10) + HEAD5[1],
    ),
    "instance_norm": Case(
        build=lambda: sequence(
            conv(3, 6, 1), nn.InstanceNorm2d(6, affine=True), nn.ReLU(), nn.GroupNorm(6, 6), channels=6
        ),
        exact=6,
        macs=STEM6[0] + HEAD6[0],
        params=STEM6[1] + 12 + 12 + HEAD6[1],
    ),
    "product": Case(
        build=Product,
        shapes=((2, 3, 5),),
        exact=6,
        macs=2 * 3 * (5 * 6 + 5 * 6 + 6 * 2) + 2 * 3 * 3 * 6,
        params=2 * (5 * 6 + 6) + (6 * 2 + 2),
    ),
    "sigmoid": Case(
        build=lambda: sequence(conv(3, 6, 1), nn.Sigmoid(), conv(6, 5, 1), nn.ReLU(), channels=5),
        exact=5,
        approximate=6,
        macs=STEM6[0] + P * 6 * 5 + HEAD5[0],
        params=STEM6[1] + (6 * 5 + 5) + HEAD5[1],
    ),
    "layer_norm": Case(
        build=lambda: nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2)),
        shapes=((2, 3, 4),),
        exact=5,
        approximate=6,
        macs=2 * 3 * (4 * 6 + 6 * 5 + 5 * 2),
        params=(4 * 6 + 6) + 12 + (6 * 5 + 5) + (5 * 2 + 2),
    ),
    "group_norm": Case(
        build=lambda: sequence(conv(3, 6, 1), nn.GroupNorm(2, 6), nn.ReLU(), channels=6),
        exact=2,  # three channels share a mean
        macs=STEM6[0] + HEAD6[0],
        params=STEM6[1] + 12 + HEAD6[1],
    ),
}
