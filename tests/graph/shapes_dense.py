"""The shapes of ENet (Paszke et al. 2016) and of EfficientFormerV2's attention (Li et al. 2022)."""

import torch
from torch import nn


class Bottleneck(nn.Module):
    """A narrow branch beside a main one: pooled, with channels of zeros behind, or unpooled."""

    def __init__(self, size, out, kind=""):
        super().__init__()
        inner, self.kind = out // 4, kind
        kernel = 2 if kind == "down" else 1
        middle = nn.ConvTranspose2d(inner, inner, 2, 2) if kind == "up" else nn.Conv2d(inner, inner, 3, padding=1)
        self.branch = nn.Sequential(
            nn.Conv2d(size, inner, kernel, kernel, bias=False), nn.BatchNorm2d(inner), nn.PReLU(),
            middle, nn.BatchNorm2d(inner), nn.PReLU(),
            nn.Conv2d(inner, out, 1, bias=False), nn.BatchNorm2d(out), nn.Dropout2d(0.1),
        )  # fmt: skip
        self.pool, self.unpool = nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)
        self.skip = nn.Sequential(nn.Conv2d(size, out, 1, bias=False), nn.BatchNorm2d(out)) if kind == "up" else None
        self.last = nn.PReLU()

    def forward(self, x, places=None):
        branch, main = self.branch(x), x
        if self.kind == "down":
            main, places = self.pool(x)
            n, c, h, w = branch.shape
            main = torch.cat([main, torch.zeros(n, c - main.shape[1], h, w, dtype=x.dtype)], 1)
        elif self.kind == "up":
            main = self.unpool(self.skip(x), places)
        return self.last(main + branch), places


class Enet(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.pool, self.norm = nn.Conv2d(3, 13, 3, 2, 1), nn.MaxPool2d(3, 2, 1), nn.BatchNorm2d(16)
        self.down_1, self.stage_1 = Bottleneck(16, 64, "down"), nn.ModuleList([Bottleneck(64, 64) for _ in range(2)])
        self.down_2, self.stage_2 = Bottleneck(64, 128, "down"), nn.ModuleList([Bottleneck(128, 128) for _ in range(4)])
        self.up_1, self.up_2 = Bottleneck(128, 64, "up"), Bottleneck(64, 16, "up")
        self.last = nn.ConvTranspose2d(16, 5, 3, 2, 1, 1)

    def forward(self, x):
        x = self.norm(torch.cat([self.first(x), self.pool(x)], 1)).relu()
        x, first = self.down_1(x)
        for block in self.stage_1:
            x, _ = block(x)
        x, second = self.down_2(x)
        for block in self.stage_2:
            x, _ = block(x)
        return self.last(self.up_2(self.up_1(x, second)[0], first)[0])


class TalkingHeads(nn.Module):
    """Attention on pixels with mixed heads, a table of biases, and another path in training (a cache)."""

    def __init__(self, size, heads=4, key_dim=8, ratio=2, resolution=4):
        super().__init__()
        self.num_heads, self.key_dim, self.d, self.n = heads, key_dim, ratio * key_dim, resolution**2
        self.scale = key_dim**-0.5
        self.q, self.k = (self.pointwise(size, key_dim * heads) for _ in range(2))
        self.v = self.pointwise(size, self.d * heads)
        self.local = nn.Sequential(
            nn.Conv2d(self.d * heads, self.d * heads, 3, padding=1, groups=self.d * heads),
            nn.BatchNorm2d(self.d * heads),
        )
        self.mix_1, self.mix_2 = nn.Conv2d(heads, heads, 1), nn.Conv2d(heads, heads, 1)
        self.proj = nn.Sequential(nn.GELU(), *self.pointwise(self.d * heads, size))
        self.bias = nn.Parameter(torch.zeros(heads, self.n))
        rows = torch.arange(self.n)
        self.register_buffer("places", (rows[:, None] - rows).abs())

    def pointwise(self, size, out):
        return nn.Sequential(nn.Conv2d(size, out, 1), nn.BatchNorm2d(out))

    @torch.no_grad()
    def train(self, mode=True):
        super().train(mode)
        if mode and hasattr(self, "cached"):
            del self.cached
        elif not mode:
            self.cached = self.bias[:, self.places]
        return self

    def forward(self, x):
        b, _, h, w = x.shape
        q = self.q(x).flatten(2).reshape(b, self.num_heads, -1, self.n).permute(0, 1, 3, 2)
        k = self.k(x).flatten(2).reshape(b, self.num_heads, -1, self.n)
        v = self.v(x)
        local = self.local(v)
        v = v.flatten(2).reshape(b, self.num_heads, -1, self.n).permute(0, 1, 3, 2)
        scores = (q @ k) * self.scale + (self.bias[:, self.places] if self.training else self.cached)
        y = self.mix_2(self.mix_1(scores).softmax(-1)) @ v
        return self.proj(y.transpose(2, 3).reshape(b, self.num_heads * self.d, h, w) + local)


class EfficientFormer(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 24, 3, 2, 1),
            nn.BatchNorm2d(24),
            nn.ReLU(),
            nn.Conv2d(24, 32, 3, 2, 1),
            nn.BatchNorm2d(32),
            nn.ReLU(),
        )
        self.attention, self.scale = TalkingHeads(32), nn.Parameter(torch.ones(32, 1, 1))
        self.mlp = nn.Sequential(
            nn.Conv2d(32, 96, 1), nn.BatchNorm2d(96), nn.GELU(), nn.Conv2d(96, 96, 3, 1, 1, groups=96),
            nn.BatchNorm2d(96), nn.GELU(), nn.Conv2d(96, 32, 1), nn.BatchNorm2d(32),
        )  # fmt: skip
        self.norm, self.head, self.head_dist = nn.BatchNorm2d(32), nn.Linear(32, 5), nn.Linear(32, 5)

    def forward(self, x):
        x = self.stem(x)
        x = x + self.scale * self.attention(x)
        x = self.norm(x + self.mlp(x)).flatten(2).mean(-1)
        first, second = self.head(x), self.head_dist(x)
        return (first, second) if self.training else (first + second) / 2
