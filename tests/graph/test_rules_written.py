"""Sizes that the code writes down: what follows at another width may go, what does not is refused."""

import pytest
import torch
from idioms import Call, check, images, reasons, tokens
from torch import nn
from torch.nn import functional as F


def conv(inner, outer):
    return nn.Conv2d(inner, outer, 3, padding=1)


def focus(x):
    return torch.cat([x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]], 1)


def halves(x):
    half = x.shape[1] // 2
    return x[:, :half] * x[:, half:]


def by_hand(x):
    return x * (x.sum(1, keepdim=True) / x.shape[1])


def scaled_by_width(x):
    return x / x.shape[1] ** 0.5


def part_written(x):
    y = x.clone()
    y[:, 2:4] = y[:, 2:4] * 2 + 1
    return y


@pytest.mark.parametrize(
    ("function", "outer", "inner", "exact"),
    [
        (focus, 4, 16, 4),
        (lambda x: F.pixel_unshuffle(x, 2), 4, 16, 4),
        (lambda x: F.pixel_shuffle(x, 2), 8, 2, 2),
        (halves, 8, 4, 4),
        (lambda x: x.roll(2, 3), 8, 8, 8),
        (lambda x: x.view(x.shape[0], x.shape[1], -1).view(x.shape), 8, 8, 8),
        (lambda x: x + torch.zeros(x.shape[1], 1, 1), 8, 8, 8),
        (lambda x: x * x.new_ones(x.shape), 8, 8, 8),
        (lambda x: x + torch.ones(8, 1, 1), 8, 8, 0),
        (lambda x: F.normalize(x, dim=1), 8, 8, 8),
    ],
    ids=["focus", "pixel_unshuffle", "pixel_shuffle", "halves", "roll", "view", "zeros", "ones", "fixed", "normalize"],
)
def test_code_that_follows_the_width(function, outer, inner, exact):
    check(Call(function, conv(3, outer), conv(inner, 2)), images(), exact=exact)


CORNERS = torch.tensor([[0, 7], [7, 0]])


@pytest.mark.parametrize(
    ("function", "exact"),
    [
        (lambda x: x[:, :, 3].unsqueeze(2), 8),
        (lambda x: torch.stack(x.unbind(3)[::2], 2), 8),
        (lambda x: x.index_select(2, torch.tensor([5, 1])), 8),
        (lambda x: x[:, :, CORNERS], 8),
        (lambda x: x[:, :, CORNERS, CORNERS], 8),
        (lambda x: x[torch.tensor([0, 1]), :, CORNERS].transpose(1, 2), 8),
        (lambda x: x.gather(2, torch.zeros(2, x.shape[1], 3, 8, dtype=torch.long)), 8),
        (lambda x: x.gather(2, torch.zeros(2, 8, 3, 8, dtype=torch.long)), 0),
        (lambda x: x.take_along_dim(torch.tensor([2, 1]).view(1, 1, 2, 1), 2), 8),
        (lambda x: x.roll((1, 2), (2, 3)), 8),
        (lambda x: x.roll(5), 0),
        (lambda x: x[:, torch.tensor([1, 0, 2, 3, 4, 5, 6, 7])], 0),
    ],
    ids=[
        "select",
        "unbind",
        "index_select",
        "rows",
        "pairs",
        "apart",
        "gather",
        "fixed",
        "along",
        "roll",
        "flat",
        "channels",
    ],
)
def test_channels_are_carried_past_what_is_indexed(function, exact):
    check(Call(function, conv(3, 8), nn.Sequential(nn.Flatten(2), nn.Conv1d(8, 2, 1))), images(), exact=exact)


@pytest.mark.parametrize(
    ("function", "outer", "inner", "reason"),
    [
        (lambda x: x.view(2, 8, 64).view(2, 8, 8, 8), 8, 8, "view has its size 8 hard-coded"),
        (lambda x: x[:, :4], 8, 4, "slice has its size 4 hard-coded"),
        (lambda x: x.roll(2, 1), 8, 8, "roll works at fixed positions"),
        (lambda x: F.group_norm(x, 8), 8, 8, "group_norm has its size 8 hard-coded"),
        (part_written, 8, 8, "slice has its size 2 hard-coded"),
    ],
    ids=["view", "slice", "roll", "group_norm", "part"],
)
def test_code_that_does_not_is_refused(function, outer, inner, reason):
    assert reason in reasons(check(Call(function, conv(3, outer), conv(inner, 2)), images(), exact=0))


@pytest.mark.parametrize("function", [by_hand, scaled_by_width])
def test_a_number_computed_from_the_width_makes_channels_approximate(function):
    groups = check(Call(function, conv(3, 8), conv(8, 2)), images(), exact=0)
    assert "a number in aten::div is computed from the width" in reasons(groups)
    assert int(groups.removable.sum()) == 8


class Splits(nn.Module):
    """Parts whose sizes are a list in an attribute."""

    def __init__(self, sizes):
        super().__init__()
        self.sizes = sizes
        self.first = conv(3, sum(sizes))
        self.parts = nn.ModuleList(conv(size, 4) for size in sizes)

    def forward(self, x):
        pieces = torch.split(self.first(x), self.sizes, 1)
        return sum(part(piece) for part, piece in zip(self.parts, pieces, strict=True))


@pytest.mark.parametrize(("sizes", "exact"), [([4, 4], 4), ([3, 5], 8)])
def test_sizes_in_a_list_follow(sizes, exact):
    groups = check(Splits(sizes), images(), exact=exact)
    assert {(one.name, one.item) for one in groups.attributes} == {("sizes", 0), ("sizes", 1)}


@pytest.mark.parametrize(
    ("function", "exact"),
    [
        (lambda x: x.masked_fill(x > 0.5, 1.0), 8),
        (lambda x: torch.where(x < 0.5, x - 1, x), 0),
        (lambda x: x.masked_fill(x < 0.5, 1.0), 0),
    ],
)
def test_whether_zero_stays_zero_is_seen_by_running_on_zero(function, exact):
    check(Call(function, conv(3, 8), conv(8, 2)), images(), exact=exact)


class Looked(nn.Module):
    """Rows of one layer's output at positions that another layer's output decides."""

    def __init__(self, function):
        super().__init__()
        self.first, self.other, self.last = nn.Linear(12, 8), nn.Linear(12, 5), nn.Linear(8, 2)
        self.function = function

    def forward(self, x):
        return self.last(self.function(self.first(x), self.other(x).sum(-1)))


@pytest.mark.parametrize(
    ("function", "exact"),
    [
        (lambda x, order: x[0][order[0].argsort()], 8),
        (lambda x, order: x[0][(order[0][:, None] - order[0]).topk(3)[1]].amax(1), 8),
        (lambda x, order: x.index_select(1, order[0].argsort()), 8),
        (lambda x, order: x[torch.arange(2)[:, None], order.topk(3, 1)[1]], 8),
        (lambda x, order: x[..., x.sum((0, 1)).argsort()], 0),
        (lambda x, order: x[0][x[0].argmax(0)].sum(0) + x, 0),
        (lambda x, order: x.gather(1, x.argsort(1)), 0),
    ],
    ids=["rows", "neighbours", "index_select", "batches", "channels", "by channels", "gather"],
)
def test_rows_may_be_looked_up_where_the_data_say(function, exact):
    check(Looked(function), tokens(), exact=exact)


class OneAttribute(nn.Module):
    """An attribute that counts the channels of the output and hidden ones, beside a size that does not follow."""

    def __init__(self):
        super().__init__()
        self.width = 8
        self.first, self.hidden, self.last = conv(3, 8), conv(8, 12), conv(12, 8)
        self.beside = nn.Conv2d(12, 10, 1)

    def forward(self, x):
        n, _, h, w = x.shape
        y = torch.relu(self.hidden(self.first(x).reshape(n, self.width, h * w).reshape(n, self.width, h, w)))
        beside = self.beside(y).reshape(n, 10, h * w).mean(2)
        return self.last(y).reshape(n, self.width, h, w), beside


def test_an_attribute_that_must_stay_keeps_all_that_it_counts():
    groups = check(OneAttribute(), images())
    widths = {name: int(groups.exact[groups.layers == layer].sum()) for layer, name in enumerate(groups.layer_names)}
    assert widths == {"first": 0, "hidden": 12, "beside": 0}
    assert groups.attributes == ()
