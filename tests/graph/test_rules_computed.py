"""Numbers computed from a width, wherever an operator takes them: the channels behind it are not exact."""

import math

import pytest
import torch
from idioms import Call, check, images, reasons, tokens
from torch import nn
from torch.nn import functional as F


def conv(inner, outer):
    return nn.Conv2d(inner, outer, 3, padding=1)


class Attention(nn.Module):
    """One head of 12 on tokens of 12; the values, 9 wide, have no part in the scale."""

    def __init__(self, attend):
        super().__init__()
        self.query, self.key, self.value, self.last = (
            nn.Linear(*size) for size in ((12, 12), (12, 12), (12, 9), (9, 2))
        )
        self.attend = attend

    def forward(self, x):
        return self.last(self.attend(self.query(x), self.key(x), self.value(x)))


class Heads(nn.Module):
    """Two heads, whose size is an attribute and a number in the scale."""

    def __init__(self, scaled):
        super().__init__()
        self.num_heads, self.head_dim, self.scaled = 2, 6, scaled
        self.query, self.key, self.value, self.last = (nn.Linear(12, size) for size in (12, 12, 12, 2))

    def forward(self, x):
        split = (
            layer(x).view(*x.shape[:2], self.num_heads, self.head_dim) for layer in (self.query, self.key, self.value)
        )
        query, key, value = (part.transpose(1, 2) for part in split)
        shares = self.scaled(query @ key.mT, self.head_dim).softmax(-1)
        return self.last((shares @ value).transpose(1, 2).flatten(2))


OF_THE_WIDTH = {
    "add": lambda x: torch.add(x, x, alpha=1 / x.shape[1]),
    "addcmul": lambda x: torch.addcmul(x, x, x, value=1 / x.shape[1]),
    "lerp": lambda x: torch.lerp(x, x * 2, 1 / x.shape[1]),
    "masked_fill": lambda x: x.masked_fill(x > 1, 1 / x.shape[1]),
    "where": lambda x: x * torch.where(x > 0, 1.0, 1 / x.shape[1]),
    "compared": lambda x: x * (x > 1 / x.shape[1]),
    "leaky_relu": lambda x: F.leaky_relu(x, 1 / x.shape[1]),
    "threshold": lambda x: F.threshold(x, 1 / x.shape[1], 0.0),
    "pad": lambda x: F.pad(x, (1, 1), value=1 / x.shape[1]),
    "avg_pool": lambda x: F.avg_pool2d(x, 2, divisor_override=x.shape[1]),
    "ones": lambda x: x / torch.ones(x.shape[1]).sum(),
    "full": lambda x: x * torch.full([], x.shape[1] ** -0.5),
    "tensor": lambda x: x / torch.tensor(x.shape[1]),
    "shape": lambda x: x / torch.tensor(x.shape).prod(),
}
SCALED = {  # the values' 9 channels have no part in the scale, where it stands by itself
    "attribute": (lambda q, k, v: F.scaled_dot_product_attention(q, k, v, scale=q.shape[-1] ** -0.5), 0),
    "number": (lambda q, k, v: (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v, 9),
    "tensor": (lambda q, k, v: (q @ k.mT / torch.sqrt(torch.tensor(k.shape[-1], dtype=q.dtype))).softmax(-1) @ v, 9),
    "new_tensor": (lambda q, k, v: (q @ k.mT / q.new_tensor(k.shape[-1]).sqrt()).softmax(-1) @ v, 9),
    "clamp": (lambda q, k, v: (q @ k.mT).clamp(max=math.log(k.shape[-1])).softmax(-1) @ v, 9),
}


@pytest.mark.parametrize("function", OF_THE_WIDTH.values(), ids=OF_THE_WIDTH)
def test_a_number_of_the_width_is_noticed_wherever_it_stands(function):
    groups = check(Call(function, conv(3, 8), conv(8, 2)), images(), exact=0)
    assert int(groups.removable.sum()) == 8 and "is computed from the width" in reasons(groups)


@pytest.mark.parametrize(("attend", "exact"), SCALED.values(), ids=SCALED)
def test_the_scale_of_attention_is_noticed_however_it_is_made(attend, exact):
    groups = check(Attention(attend), tokens(), exact=exact)
    assert "is computed from the width" in reasons(groups)


@pytest.mark.parametrize(
    "scaled",
    [lambda x, size: x / math.sqrt(size), lambda x, size: x / torch.sqrt(torch.tensor(size))],
    ids=["sqrt", "tensor"],
)
def test_heads_scaled_by_their_size_may_go_though_not_exactly(scaled):
    groups = check(Heads(scaled), tokens(), exact=0)
    assert int(groups.removable.sum()) == 6  # of each head's size, evenly


class Correlation(nn.Module):
    """Features of two images correlated (RAFT), beside a branch that has no part in it."""

    def __init__(self):
        super().__init__()
        self.features, self.beside = nn.Conv2d(3, 12, 1), nn.Conv2d(3, 8, 1)
        self.read, self.last = nn.Conv2d(64, 10, 1), nn.Conv2d(18, 2, 1)

    def forward(self, first, second):
        one, other = self.features(first).flatten(2), self.features(second).flatten(2)
        volume = (one.mT @ other / one.shape[1] ** 0.5).view(first.shape[0], -1, *first.shape[2:])
        return self.last(torch.cat([self.read(volume).relu(), self.beside(first).relu()], 1))


def test_a_number_blames_what_went_into_it_alone():
    groups = check(Correlation(), images(), images(), exact=18)
    assert int(groups.removable.sum()) == 30


def thirds(x):
    first, second, third = x.chunk(3, 1)
    return torch.cat([first.relu(), second, -third], 1)


def quarter(x):
    first, rest = x.split([x.shape[1] // 4, x.shape[1] - x.shape[1] // 4], 1)
    return torch.cat([first.relu(), rest], 1)


@pytest.mark.parametrize(
    ("function", "exact"),
    [(thirds, 0), (quarter, 0), (lambda x: torch.cat([*x.tensor_split([5], 1)][::-1], 1), 0)],
    ids=["thirds", "quarter", "tensor_split"],
)
def test_unlike_parts_that_are_computed_from_the_whole_stay(function, exact):
    check(Call(function, conv(3, 16), conv(16, 2)), images(), exact=exact)


@pytest.mark.parametrize(
    ("function", "exact"),
    [
        (lambda x: torch.max(x, torch.zeros_like(x)), 8),
        (lambda x: torch.min(x, x * 2), 8),
        (lambda x: x.cumsum(2), 8),
        (lambda x: x.flatten(2).sort(2)[0].unflatten(2, x.shape[2:]), 8),
        (lambda x: x.flatten(2).topk(4, 2)[0][..., None], 8),
        (lambda x: x.flatten(2).sort(2)[1].double()[..., None], 0),
        (lambda x: x.flatten(2).median(2)[0][..., None, None], 8),
        (lambda x: x.flatten(2).kthvalue(3, 2)[0][..., None, None], 8),
        (lambda x: x.flatten(2).median(2)[1].double()[..., None, None], 0),
        (lambda x: x.cummax(3)[0], 8),
        (lambda x: x.tril(), 8),
        (lambda x: sum(torch.broadcast_tensors(x, x[:, :, :1])), 8),
        (lambda x: x.cumsum(1), 0),
        (lambda x: x * x.max(1, keepdim=True)[0], 0),
    ],
    ids=[
        *(
            "max",
            "min",
            "cumsum",
            "sort",
            "topk",
            "order",
            "median",
            "kthvalue",
            "place of the median",
            "cummax",
            "tril",
        ),
        *("broadcast", "over channels", "max over channels"),
    ],
)
def test_operators_along_positions_keep_zeros(function, exact):
    check(Call(function, conv(3, 8), conv(8, 2)), images(), exact=exact)


class Shuffled(nn.Module):
    """Scaled by its width beside another layer; a shuffle makes four channels one, across the two layers."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = conv(3, 6), conv(6, 6), conv(3, 2)

    def forward(self, x):
        y = self.first(x)
        return self.last(F.pixel_shuffle(torch.cat([y / y.shape[1] ** 0.5, self.second(y)], 1), 2))


def test_every_layer_is_tried_at_another_width_where_channels_of_several_are_one():
    assert "a number in aten::div is computed from the width" in reasons(check(Shuffled(), images(), exact=0))
