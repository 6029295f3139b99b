"""Networks with one idiom each, and the law in one call."""

import nets
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import prunus
from prunus.graph import ChannelGroups


def check(model: nn.Module, *inputs: Tensor, exact: int | None = None, whole_heads: bool = False) -> ChannelGroups:
    """Randomise `model`, hold it against the law, and return its groups."""
    model = nets.randomised(model, seed=3).double().eval()
    inputs = tuple(x.double() if x.is_floating_point() else x for x in inputs)
    groups = prunus.trace(model, inputs, whole_heads=whole_heads)
    record = prunus.check_removal(model, inputs, seed=1, whole_heads=whole_heads)
    assert record.max_rel_diff <= 1e-12
    if exact is not None:
        assert int(groups.exact.sum()) == exact, set(groups.reasons.values())
    if bool(groups.exact.any()):
        assert record.removed > 0 and record.params_after < record.params_before
    return groups


def reasons(groups: ChannelGroups) -> str:
    """Return everything that is said of the groups."""
    return "\n".join(reason.text for reason in groups.told)


def images(channels: int = 3) -> Tensor:
    return torch.randn(2, channels, 8, 8, generator=torch.Generator().manual_seed(0))


def tokens(size: int = 12) -> Tensor:
    return torch.randn(2, 5, size, generator=torch.Generator().manual_seed(0))


class FusedAttention(nn.Module):
    """qkv in one layer; sizes read from attributes, or computed from the input."""

    def __init__(self, size: int, heads: int, head_dim: int, *, scaled: bool) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.scaled = heads, head_dim, scaled
        self.scale = head_dim**-0.5
        self.inner = heads * head_dim
        self.qkv = nn.Linear(size, 3 * self.inner)
        self.proj = nn.Linear(self.inner, size)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        qkv = self.qkv(x).reshape(batch, length, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        if self.scaled:
            y = ((q * self.scale) @ k.transpose(-2, -1)).softmax(-1) @ v
        else:
            y = F.scaled_dot_product_attention(q, k, v)
        return self.proj(y.transpose(1, 2).reshape(batch, length, self.inner))


class WindowAttention(nn.Module):
    """Attention inside windows of two tokens, with a bias for each head and distance (as Swin has it)."""

    def __init__(self, size: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.scale = heads, head_dim, head_dim**-0.5
        self.q, self.kv = nn.Linear(size, heads * head_dim), nn.Linear(size, 2 * heads * head_dim)
        self.table = nn.Parameter(torch.zeros(3, heads))
        self.register_buffer("distance", torch.tensor([[1, 2], [0, 1]]))
        self.proj = nn.Linear(heads * head_dim, size)

    def forward(self, x: Tensor) -> Tensor:
        windows = x.unflatten(1, (-1, 2)).flatten(0, 1)
        q = self.q(windows).view(-1, 2, self.num_heads, self.head_dim).transpose(1, 2)
        kv = self.kv(windows).view(-1, 2, 2, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        bias = self.table[self.distance.view(-1)].view(2, 2, -1).permute(2, 0, 1)
        y = ((q * self.scale) @ kv[0].transpose(-2, -1) + bias.unsqueeze(0)).softmax(-1) @ kv[1]
        return self.proj(y.transpose(1, 2).flatten(2)).unflatten(0, (x.shape[0], -1)).flatten(1, 2)


class RigidAttention(nn.Module):
    """The head's size is computed from the input's: nothing of it can change."""

    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(size, 3 * size), nn.Linear(size, size)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, size = x.shape
        q, k, v = self.qkv(x).view(batch, length, 3, self.heads, size // self.heads).permute(2, 0, 3, 1, 4)
        y = (q @ k.transpose(-2, -1) * size**-0.5).softmax(-1) @ v
        return self.proj(y.transpose(1, 2).reshape(batch, length, size))


class Wrapped(nn.Module):
    """A linear layer before, one after."""

    def __init__(self, inside: nn.Module, size: int) -> None:
        super().__init__()
        self.first, self.inside, self.last = nn.Linear(size, size), inside, nn.Linear(size, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.inside(self.first(x)))


class SelfAttention(nn.Module):
    """torch's own layer."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(size, 3, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=False)[0]


class Call(nn.Module):
    """A function between two convolutions."""

    def __init__(self, function, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.function, self.first, self.second = function, first, second

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.function(self.first(x)))
