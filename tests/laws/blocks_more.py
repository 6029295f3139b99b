"""More blocks: other ranks, windows, tied weights, a recurrent layer; and networks of several inputs and outputs."""

import nets
import torch
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

WINDOW = 3


class Line(nn.Module):
    """A network of one dimension, [N, C, L], on an image's pixels."""

    def __init__(self, inside):
        super().__init__()
        self.inside = inside

    def forward(self, x):
        return self.inside(x.flatten(2)).unflatten(2, x.shape[2:])


class Volume(nn.Module):
    """A network of three dimensions on an image and its mirror image, behind each other."""

    def __init__(self, inside):
        super().__init__()
        self.inside = inside

    def forward(self, x):
        return self.inside(torch.stack([x, x.flip(-1)], 2)).amax(2)


class Windows(nn.Module):
    """Attention inside windows with a learned bias for each relative position, as Swin has it."""

    def __init__(self, size, heads, head_size):
        super().__init__()
        self.num_heads, self.head_size, self.scale = heads, head_size, head_size**-0.5
        self.qkv, self.out = nn.Linear(size, 3 * heads * head_size), nn.Linear(heads * head_size, size)
        self.table = nn.Parameter(torch.zeros((2 * WINDOW - 1) ** 2, heads))
        places = torch.cartesian_prod(torch.arange(WINDOW), torch.arange(WINDOW))
        apart = places[:, None] - places + WINDOW - 1
        self.register_buffer("index", apart[..., 0] * (2 * WINDOW - 1) + apart[..., 1])

    def forward(self, x):
        n, c, h, w = x.shape
        rows, columns, area = h // WINDOW, w // WINDOW, WINDOW**2
        x = x.view(n, c, rows, WINDOW, columns, WINDOW).permute(0, 2, 4, 3, 5, 1).reshape(-1, area, c)
        q, k, v = self.qkv(x).reshape(-1, area, 3, self.num_heads, self.head_size).permute(2, 0, 3, 1, 4).unbind(0)
        bias = self.table[self.index].permute(2, 0, 1)
        y = ((q * self.scale) @ k.transpose(-2, -1) + bias).softmax(-1) @ v
        y = self.out(y.transpose(1, 2).reshape(-1, area, self.num_heads * self.head_size))
        return y.view(n, rows, columns, WINDOW, WINDOW, -1).permute(0, 5, 1, 3, 2, 4).reshape(n, c, h, w)


class Recurrent(nn.Module):
    """A recurrent layer over an image's pixels, one after the other."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x.flatten(2).transpose(1, 2))[0].transpose(1, 2).unflatten(2, x.shape[2:])


ORDER = torch.tensor([3, 0, 5, 1, 4, 2])  # of the rows or columns of an image of 6 x 6


def put(y, x):
    y[:, :, ORDER] = x
    return y


def halves(x):
    """Two channels become the halves of a volume, written row by row."""
    y = x.new_zeros(x.shape[0], 2 * x.shape[1], *x.shape[2:])
    for row in range(6):
        y[:, : x.shape[1], row], y[:, x.shape[1] :, row, 1:] = x[:, :, row], x[:, :, row, :-1]
    return y[:, : x.shape[1]] - y[:, x.shape[1] :]


def parts(x):
    """Rows of an empty tensor are written, through views of it."""
    y = torch.empty(x.shape[0], *x.shape[2:], x.shape[1], dtype=x.dtype)
    upper = y.movedim(3, 1)[:, :, :3]
    upper.copy_(x[:, :, :3]).mul_(2)
    y[:, 3:] = x.permute(0, 2, 3, 1)[:, 3:]
    return y.permute(0, 3, 1, 2)


def shifted(x):
    y = x.clone()
    y[:, :, 1] += 1
    y.permute(0, 2, 3, 1)[:, 2] -= x[:, :, 3].transpose(1, 2)
    return y


def best(x):
    """The pixels in the order of one map, which all channels share."""
    order = x.sum(1).flatten(1).argsort(1).unsqueeze(1)
    return x.flatten(2).gather(2, order.expand(-1, x.shape[1], -1)).view_as(x)


INDEXINGS = {
    "halves": halves,
    "parts": parts,
    "shifted": shifted,
    "best": best,
    "masked": lambda x: x * (x.mean(1, keepdim=True) > 0).repeat(1, x.shape[1], 1, 1),
    "spread": lambda x: torch.where(x[:, :1].expand(-1, x.shape[1], -1, -1) > 0, x, x.flip(2)),
    "repeated sum": lambda x: x * x[:, :1].expand(-1, x.shape[1], -1, -1).sum(1, keepdim=True).tanh(),
    "roll": lambda x: x.roll((1, -2), (2, 3)),
    "flat roll": lambda x: x.roll(5),
    "roll of channels": lambda x: x.roll(1, 1),
    "rows": lambda x: x[:, :, ORDER],
    "pixels": lambda x: x[:, :, ORDER[:, None], ORDER],
    "images and rows": lambda x: x[torch.tensor([1, 0])[:, None], :, ORDER].permute(0, 2, 1, 3).contiguous(),
    "channels": lambda x: x[:, torch.arange(x.shape[1]).flip(0)],
    "index_select": lambda x: x.index_select(3, ORDER),
    "gather": lambda x: x.gather(2, ORDER.view(6, 1).expand(*x.shape[:2], 6, 6)),
    "take_along_dim": lambda x: x.take_along_dim(ORDER.view(1, 1, 1, 6), 3),
    "unbind": lambda x: torch.stack(x.unbind(2)[::-1], 2),
    "select": lambda x: torch.cat([x.select(3, place).unsqueeze(3) for place in ORDER.tolist()], 3),
    "rows by data": lambda x: x[:, :, x.sum((0, 1, 3)).argsort()],
    "index_add": lambda x: torch.zeros_like(x).index_add(2, ORDER // 2, x),
    "index_put": lambda x: put(torch.zeros_like(x), x),
    "sort": lambda x: x.sort(2)[0],
    "cumsum": lambda x: x.cumsum(3),
    "larger": lambda x: torch.max(x, x.flip(2)),
}
COMPUTED = {  # numbers and parts of the width
    "scale": lambda x: x / x.shape[1] ** 0.5,
    "tensor": lambda x: x * torch.tensor(1 / x.shape[1], dtype=x.dtype),
    "full": lambda x: x + x * torch.full([], x.shape[1], dtype=x.dtype),
    "alpha": lambda x: torch.add(x, x.relu(), alpha=1 / x.shape[1]),
    "slope": lambda x: F.leaky_relu(x, 1 / x.shape[1]),
    "mean": lambda x: x * (x.sum(1, keepdim=True) / x.shape[1]).tanh(),
    "thirds": lambda x: torch.cat(x.chunk(3, 1)[::-1], 1),
    "quarter": lambda x: torch.cat(x.split([x.shape[1] // 4, x.shape[1] - x.shape[1] // 4], 1)[::-1], 1),
}


class Indexed(nn.Module):
    """Pixels, images or channels are put elsewhere."""

    def __init__(self, name):
        super().__init__()
        self.name = name

    def forward(self, x):
        return INDEXINGS[self.name](x)


class Computed(Indexed):
    """Numbers computed from the width, or parts of it."""

    def forward(self, x):
        return COMPUTED[self.name](x)


class Cosine(nn.Conv2d):
    """A convolution whose kernels have length one."""

    def forward(self, x):
        length = self.weight.pow(2).sum((1, 2, 3), keepdim=True).sqrt()
        return F.conv2d(x, self.weight / (length + 1e-3), self.bias, padding=self.padding)


class Decoded(nn.Module):
    """Down to a few channels and back up with the same weight, transposed."""

    def __init__(self, size, hidden):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(hidden, size, 1, 1))

    def forward(self, x):
        return F.conv2d(F.relu(F.conv2d(x, self.weight)), self.weight.transpose(0, 1))


class Network(nn.Module):
    """One or several images in, one or several outputs."""

    def __init__(self, stem, body, heads):
        super().__init__()
        self.stem, self.body, self.heads = stem, body, nn.ModuleDict(heads)

    def forward(self, *images):
        x = self.body(self.stem(*images))
        outputs = {name: head(x) for name, head in self.heads.items()}
        return outputs if len(outputs) > 1 else outputs["scores"]


def in_line(draw, size):
    layer = draw(st.sampled_from([nn.Conv1d, nn.ConvTranspose1d]))
    return Line(nn.Sequential(layer(size, 6, 3, padding=1), nn.BatchNorm1d(6), nn.ReLU())), 6


def in_volume(draw, size):
    layer = draw(st.sampled_from([nn.Conv3d, nn.ConvTranspose3d]))
    groups = draw(st.sampled_from([1, size]))
    return Volume(nn.Sequential(layer(size, size, 3, padding=1, groups=groups), nn.BatchNorm3d(size))), size


def windowed(draw, size):
    return nets.Join(nets.add, nn.Identity(), Windows(size, draw(st.sampled_from([1, 2])), 4)), size


def tied(draw, size):
    """Two layers, or the two halves of one autoencoder, hold one weight."""
    if draw(st.booleans()):
        return Decoded(size, 5), size
    first, second = (nets.conv(size, size, groups=draw(st.sampled_from([1, size]))) for _ in range(2))
    if first.weight.shape == second.weight.shape:
        second.weight = first.weight
    return nn.Sequential(first, nn.ReLU(), second), size


def recurrent(draw, size):
    kind = draw(st.sampled_from([nn.GRU, nn.LSTM, nn.RNN]))
    return Recurrent(kind(size, 5, batch_first=True)), 5


def indexed(draw, size):
    return Indexed(draw(st.sampled_from(sorted(INDEXINGS)))), size


def computed(draw, size):
    return Computed(draw(st.sampled_from(sorted(COMPUTED)))), size


class Own(nn.Module):
    """torch's own attention on an image's pixels."""

    def __init__(self, size, heads):
        super().__init__()
        self.before, self.inside = nn.Linear(size, 8), nn.MultiheadAttention(8, heads, batch_first=True)
        self.after = nn.Linear(8, size)

    def forward(self, x):
        tokens = self.before(x.flatten(2).transpose(1, 2))
        y = self.inside(tokens, tokens, tokens, need_weights=self.training)[0]
        return x + self.after(y).transpose(1, 2).unflatten(2, x.shape[2:])


def own_attention(draw, size):
    return Own(size, draw(st.sampled_from([1, 2, 4]))), size


def factors(draw, size):
    """A depthwise layer in factors, of several channels for each of its own."""
    times = draw(st.sampled_from([1, 2, 3]))
    return nn.Sequential(nets.conv(size, size * times, groups=size), nets.conv(size * times, size, groups=size)), size


def cosine(draw, size):
    return Cosine(size, 6, 3, padding=1), 6


MORE = (in_line, in_volume, windowed, tied, recurrent, indexed, indexed, computed, cosine, own_attention, factors)


def network(draw, body, size):
    """Return a network around `body`, from 6 to `size` channels, and its inputs' shapes."""
    images = draw(st.sampled_from([((2, 3, 6, 6),), ((2, 3, 6, 6), (2, 1, 6, 6))]))
    join, inner = draw(st.sampled_from([(nets.add, 6), (nets.concat, 3)]))
    stems = [nets.conv(shape[1], inner if len(images) > 1 else 6) for shape in images]
    stem = nets.Join(join, *stems) if len(images) > 1 else stems[0]
    heads = {"scores": nn.Sequential(*nets.head(size))}
    if draw(st.booleans()):
        heads["map"] = nets.conv(size, 2, 1)
    return Network(stem, body, heads), images
