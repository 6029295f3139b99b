"""The shapes of DETR (Carion et al. 2020), RT-DETR (Zhao et al. 2023) and SAM's decoder (Kirillov et al. 2023)."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from prunus.compat import torchvision


def frozen(size, out):
    return nn.Sequential(
        nn.Conv2d(size, out, 3, 2, 1, bias=False), torchvision.ops.FrozenBatchNorm2d(out), nn.ReLU(inplace=True)
    )


class Layer(nn.Module):
    """A layer of DETR\'s transformer; with `cross`, one of its decoder."""

    def __init__(self, size, heads, hidden, *, cross=False):
        super().__init__()
        self.self_attn = nn.MultiheadAttention(size, heads, dropout=0.1)
        self.cross_attn = nn.MultiheadAttention(size, heads, dropout=0.1) if cross else None
        self.linear1, self.linear2 = nn.Linear(size, hidden), nn.Linear(hidden, size)
        self.norms = nn.ModuleList([nn.LayerNorm(size) for _ in range(3 if cross else 2)])

    def forward(self, x, pos, memory=None, memory_pos=None):
        x = self.norms[0](x + self.self_attn(x + pos, x + pos, value=x, attn_mask=None)[0])
        if self.cross_attn is not None:
            x = self.norms[2](x + self.cross_attn(query=x + pos, key=memory + memory_pos, value=memory)[0])
        return self.norms[1](x + self.linear2(self.linear1(x).relu()))


class Detr(nn.Module):
    def __init__(self, size=32, heads=4):
        super().__init__()
        self.backbone = nn.Sequential(frozen(3, 24), frozen(24, 48), frozen(48, 64))
        self.input_proj, self.query_embed = nn.Conv2d(64, size, 1), nn.Embedding(6, size)
        self.row_embed, self.col_embed = (
            nn.Parameter(torch.rand(50, size // 2)),
            nn.Parameter(torch.rand(50, size // 2)),
        )
        self.encoder = nn.ModuleList([Layer(size, heads, 96) for _ in range(2)])
        self.decoder = nn.ModuleList([Layer(size, heads, 96, cross=True) for _ in range(2)])
        self.norm, self.class_embed = nn.LayerNorm(size), nn.Linear(size, 5)
        self.bbox_embed = nn.Sequential(
            nn.Linear(size, size), nn.ReLU(), nn.Linear(size, size), nn.ReLU(), nn.Linear(size, 4)
        )

    def forward(self, x):
        x = self.input_proj(self.backbone(x))
        n, _, h, w = x.shape
        columns, rows = self.col_embed[:w].unsqueeze(0).repeat(h, 1, 1), self.row_embed[:h].unsqueeze(1).repeat(1, w, 1)
        pos = torch.cat([columns, rows], -1).flatten(0, 1).unsqueeze(1)
        x, query = x.flatten(2).permute(2, 0, 1), self.query_embed.weight.unsqueeze(1).repeat(1, n, 1)
        for layer in self.encoder:
            x = layer(x, pos)
        y, found = torch.zeros_like(query), []
        for layer in self.decoder:
            y = layer(y, query, x, pos)
            found.append(self.norm(y))
        found = torch.stack(found).transpose(1, 2)
        return self.class_embed(found)[-1], self.bbox_embed(found).sigmoid()[-1]


class Deformable(nn.Module):
    """Attention at a few places of each level, looked up with `grid_sample`."""

    def __init__(self, size, heads, levels, points):
        super().__init__()
        self.size, self.heads, self.levels, self.points = size, heads, levels, points
        self.offsets, self.weights = (nn.Linear(size, heads * levels * points * num) for num in (2, 1))
        self.value, self.out = nn.Linear(size, size), nn.Linear(size, size)

    def forward(self, query, reference, value, shapes):
        n, length, _ = query.shape
        value = self.value(value).view(n, value.shape[1], self.heads, self.size // self.heads)
        offsets = self.offsets(query).view(n, length, self.heads, self.levels, self.points, 2)
        weights = self.weights(query).view(n, length, self.heads, self.levels * self.points).softmax(-1)
        scale = torch.tensor([[w, h] for h, w in shapes]).to(query.dtype)
        grids = 2 * (reference[:, :, None, None, None] + offsets / scale[None, None, None, :, None]) - 1
        found = []
        for level, (part, (h, w)) in enumerate(zip(value.split([h * w for h, w in shapes], 1), shapes, strict=True)):
            image = part.flatten(2).transpose(1, 2).reshape(n * self.heads, self.size // self.heads, h, w)
            grid = grids[:, :, :, level].transpose(1, 2).flatten(0, 1)
            found.append(F.grid_sample(image, grid, padding_mode="zeros", align_corners=False))
        weights = weights.transpose(1, 2).reshape(n * self.heads, 1, length, self.levels * self.points)
        y = (torch.stack(found, -2).flatten(-2) * weights).sum(-1).view(n, self.size, length)
        return self.out(y.transpose(1, 2))


def conv(size, out, kernel=3, stride=1):
    return nn.Sequential(nn.Conv2d(size, out, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(out), nn.SiLU())


class RtDetr(nn.Module):
    """A convolutional encoder with attention on its last map, the best queries, a decoder with deformable attention."""

    def __init__(self, size=32, heads=4):
        super().__init__()
        self.stem, self.stage = conv(3, 24, 3, 4), conv(24, 48, 3, 2)
        self.inputs = nn.ModuleList([nn.Sequential(nn.Conv2d(w, size, 1), nn.BatchNorm2d(size)) for w in (24, 48)])
        self.aifi, self.lateral, self.fpn = Layer(size, heads, 64), conv(size, size, 1), conv(2 * size, size)
        self.enc_output = nn.Sequential(nn.Linear(size, size), nn.LayerNorm(size))
        self.enc_score, self.enc_box = nn.Linear(size, 5), nn.Linear(size, 4)
        self.self_attn, self.cross_attn = (
            nn.MultiheadAttention(size, heads, batch_first=True),
            Deformable(size, heads, 2, 3),
        )
        self.norm_1, self.norm_2, self.norm_3 = (nn.LayerNorm(size) for _ in range(3))
        self.linear1, self.linear2 = nn.Linear(size, 64), nn.Linear(64, size)
        self.query_pos = nn.Sequential(nn.Linear(4, 2 * size), nn.ReLU(), nn.Linear(2 * size, size))
        self.score, self.box = nn.Linear(size, 5), nn.Linear(size, 4)

    def position(self, h, w, size, dtype):
        rows = torch.meshgrid(torch.arange(w), torch.arange(h), indexing="ij")
        omega = 1.0 / 10000 ** (torch.arange(size // 4, dtype=dtype) / (size // 4))
        turns = [row.to(dtype).flatten()[:, None] @ omega[None] for row in rows]
        return torch.cat([each for turn in turns for each in (turn.sin(), turn.cos())], 1)[:, None]

    def forward(self, x):
        x = self.stem(x)
        low, high = self.inputs[0](x), self.inputs[1](self.stage(x))
        n, c, h, w = high.shape
        tokens = self.aifi(high.flatten(2).permute(2, 0, 1), self.position(h, w, 32, x.dtype))
        high = self.lateral(tokens.permute(1, 2, 0).reshape(n, c, h, w))
        low = self.fpn(torch.cat([F.interpolate(high, scale_factor=2.0), low], 1))
        maps = (low, high)
        memory, shapes = (
            torch.cat([each.flatten(2).transpose(1, 2) for each in maps], 1),
            [each.shape[2:] for each in maps],
        )
        anchors = [torch.stack(torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij"), -1) for h, w in shapes]
        anchors = torch.cat([a.flatten(0, 1) / torch.tensor([h, w]) for a, (h, w) in zip(anchors, shapes, strict=True)])
        memory = (anchors < 2).all(-1, keepdim=True).to(memory.dtype) * memory
        y = self.enc_output(memory)
        scores, boxes = self.enc_score(y), self.enc_box(y) + anchors.repeat(1, 2).to(y.dtype)
        best = torch.topk(scores.max(-1).values, 6, dim=1)[1]
        reference = boxes.gather(1, best.unsqueeze(-1).repeat(1, 1, boxes.shape[-1])).detach().sigmoid()
        target = y.gather(1, best.unsqueeze(-1).repeat(1, 1, y.shape[-1])).detach()
        query = target + self.query_pos(reference)
        target = self.norm_1(target + self.self_attn(query, query, target)[0])
        seen = self.cross_attn(target + self.query_pos(reference), reference[..., :2], memory, shapes)
        target = self.norm_2(target + seen)
        target = self.norm_3(target + self.linear2(self.linear1(target).relu()))
        final = self.score(target), (self.box(target) + reference.logit(1e-5)).sigmoid()
        return (*final, scores, boxes) if self.training else final


class Attention(nn.Module):
    """SAM\'s: the size inside is the size outside, or a part of it; that of a head is computed."""

    def __init__(self, size, heads, part=1):
        super().__init__()
        self.heads, inner = heads, size // part
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(size, inner) for _ in range(3))
        self.out_proj = nn.Linear(inner, size)

    def parts(self, x):
        n, length, size = x.shape
        return x.reshape(n, length, self.heads, size // self.heads).transpose(1, 2)

    def forward(self, q, k, v):
        q, k, v = self.parts(self.q_proj(q)), self.parts(self.k_proj(k)), self.parts(self.v_proj(v))
        y = ((q @ k.permute(0, 1, 3, 2)) / math.sqrt(q.shape[3])).softmax(-1) @ v
        n, heads, length, size = y.shape
        return self.out_proj(y.transpose(1, 2).reshape(n, length, heads * size))


class TwoWay(nn.Module):
    def __init__(self, size, heads, hidden):
        super().__init__()
        self.inside, self.to_image, self.to_tokens = (
            Attention(size, heads),
            *(Attention(size, heads, 2) for _ in range(2)),
        )
        self.mlp = nn.Sequential(nn.Linear(size, hidden), nn.ReLU(), nn.Linear(hidden, size))
        self.norm_1, self.norm_2, self.norm_3, self.norm_4 = (nn.LayerNorm(size) for _ in range(4))

    def forward(self, q, k, q_pos, k_pos):
        q = self.norm_1(q + self.inside(q + q_pos, q + q_pos, q))
        q = self.norm_2(q + self.to_image(q + q_pos, k + k_pos, k))
        q = self.norm_3(q + self.mlp(q))
        return q, self.norm_4(k + self.to_tokens(k + k_pos, q + q_pos, q))


class LayerNorm2d(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(size)), nn.Parameter(torch.zeros(size))

    def forward(self, x):
        mean = x.mean(1, keepdim=True)
        x = (x - mean) / torch.sqrt((x - mean).pow(2).mean(1, keepdim=True) + 1e-6)
        return self.weight[:, None, None] * x + self.bias[:, None, None]


def mlp(size, out):
    return nn.Sequential(nn.Linear(size, size), nn.ReLU(), nn.Linear(size, size), nn.ReLU(), nn.Linear(size, out))


class SamDecoder(nn.Module):
    """Tokens and prompts [N, points, 2] attend to an image\'s map and back; each mask token makes a filter."""

    def __init__(self, size=32, heads=4, num=3):
        super().__init__()
        self.num, self.image, self.position = num, nn.Conv2d(3, size, 4, 4), nn.Conv2d(2, size, 1)
        self.prompt = nn.Linear(2, size)
        self.blocks = nn.ModuleList([TwoWay(size, heads, 64) for _ in range(2)])
        self.final, self.norm = Attention(size, heads, 2), nn.LayerNorm(size)
        self.iou_token, self.mask_tokens = nn.Embedding(1, size), nn.Embedding(num, size)
        self.upscaling = nn.Sequential(
            nn.ConvTranspose2d(size, size // 4, 2, 2), LayerNorm2d(size // 4), nn.GELU(),
            nn.ConvTranspose2d(size // 4, size // 8, 2, 2), nn.GELU(),
        )  # fmt: skip
        self.filters, self.iou = nn.ModuleList([mlp(size, size // 8) for _ in range(num)]), mlp(size, num)

    def forward(self, x, points):
        image, position = self.image(x), self.position(F.avg_pool2d(x[:, :2], 4))
        tokens = (
            torch.cat([self.iou_token.weight, self.mask_tokens.weight]).unsqueeze(0).expand(points.shape[0], -1, -1)
        )
        tokens = torch.cat([tokens, self.prompt(points)], 1)
        n, c, h, w = image.shape
        q, k, k_pos = tokens, image.flatten(2).permute(0, 2, 1), position.flatten(2).permute(0, 2, 1)
        for block in self.blocks:
            q, k = block(q, k, tokens, k_pos)
        q = self.norm(q + self.final(q + tokens, k + k_pos, k))
        up = self.upscaling(k.transpose(1, 2).view(n, c, h, w))
        filters = torch.stack([part(q[:, 1 + number]) for number, part in enumerate(self.filters)], 1)
        n, c, h, w = up.shape
        return (filters @ up.view(n, c, h * w)).view(n, -1, h, w), self.iou(q[:, 0])
