"""Sizes that code computes from the width of another tensor: its channels and those that are counted go together."""

import pytest
import torch
from idioms import RigidAttention, Wrapped, check, reasons, tokens
from torch import nn

import prunus


class Reduced(nn.Module):
    """Attention to fewer tokens; every size is computed from the width of what comes in (SegFormer, PVT)."""

    def __init__(self, size=12, heads=3):
        super().__init__()
        self.heads, self.scale = heads, (size // heads) ** -0.5
        self.q, self.kv, self.proj = nn.Linear(size, size), nn.Linear(size, 2 * size), nn.Linear(size, size)
        self.fewer, self.norm = nn.Conv1d(size, size, 2, 2), nn.LayerNorm(size)

    def forward(self, x):
        n, length, c = x.shape
        q = self.q(x).reshape(n, length, self.heads, c // self.heads).permute(0, 2, 1, 3)
        other = self.norm(self.fewer(x.mT).reshape(n, c, -1).permute(0, 2, 1))
        k, v = self.kv(other).reshape(n, -1, 2, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        y = (q @ k.mT * self.scale).softmax(-1) @ v
        return self.proj(y.transpose(1, 2).reshape(n, length, c))


class Alone(nn.Module):
    """Everything in one module, and a hidden layer beside the attention."""

    def __init__(self, size=12, heads=3):
        super().__init__()
        self.heads, self.scale = heads, (size // heads) ** -0.5
        self.first, self.norm, self.qkv = nn.Linear(12, size), nn.LayerNorm(size), nn.Linear(size, 3 * size)
        self.proj, self.up, self.down = nn.Linear(size, size), nn.Linear(size, 20), nn.Linear(20, size)
        self.last = nn.Linear(size, 2)

    def forward(self, x):
        x = self.first(x)
        y = self.norm(x)
        n, length, c = y.shape
        q, k, v = self.qkv(y).reshape(n, length, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        y = (q @ k.mT * self.scale).softmax(-1) @ v
        x = x + self.proj(y.transpose(1, 2).reshape(n, length, c))
        return self.last(x + self.down(self.up(x).relu()))


class Stream(nn.Module):
    """Normalised before, added after."""

    def __init__(self, inside):
        super().__init__()
        self.first, self.norm, self.inside, self.last = nn.Linear(12, 12), nn.LayerNorm(12), inside, nn.Linear(12, 2)

    def forward(self, x):
        x = self.first(x)
        return self.last(x + self.inside(self.norm(x)))


@pytest.mark.parametrize("build", [lambda: Stream(Reduced()), Alone], ids=["reduced", "alone"])
def test_heads_sized_by_the_input_go_with_its_channels(build):
    model, x = build(), torch.randn(2, 6, 12, generator=torch.Generator().manual_seed(0))
    groups = check(model, x)
    assert groups.coverage().removable_params > 0.99, reasons(groups)
    plan = prunus.select(model, groups, budget=prunus.Budget(params=0.6, approximate=True))
    small = prunus.apply(plan, model)
    widths = [module.in_features for name, module in small.named_modules() if name.endswith(("q", "qkv"))]
    assert 0 < widths[0] < 12 and widths[0] % 3 == 0
    small(x.double()).sum().backward()


def test_channels_that_go_exactly_are_not_tied():
    groups = check(Wrapped(RigidAttention(12, 3), 12), tokens(), exact=12)
    assert "has its size" in reasons(groups)
