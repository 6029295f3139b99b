"""One value that is spread over a dimension may be as wide as the channels that it meets."""

import pytest
from idioms import check, images
from torch import nn
from torch.nn import functional as F


class Spread(nn.Module):
    """A map of one channel, spread over those of a layer by `function(map, channels)`."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.first, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 2, 1)

    def forward(self, x):
        return self.last(self.function(x[:, :1], self.first(x)))


def scaled(spread):
    return lambda m, y: y * spread(m.sigmoid(), y)


def looked_up(spread):
    """As CenterNet and two-stage DETR gather the features of the best places."""

    def function(m, y):
        rows = y.flatten(2).transpose(1, 2)
        return rows.gather(1, spread(m.flatten(1).argsort(1), rows)).transpose(1, 2).view_as(y)

    return function


FUNCTIONS = {
    "expand": (scaled(lambda m, y: m.expand(-1, y.shape[1], -1, -1)), 8),
    "repeat": (scaled(lambda m, y: m.repeat(1, y.shape[1], 1, 1)), 8),
    "changed": (scaled(lambda m, y: m.expand_as(y).contiguous() * 2 > 1), 8),
    "hard-coded": (scaled(lambda m, y: m.expand(-1, 8, -1, -1)), 0),
    "cut": (scaled(lambda m, y: m.expand(-1, y.shape[1], -1, -1).cumsum(1)), 0),
    "summed": (lambda m, y: y * m.expand(-1, y.shape[1], -1, -1).sum(1, keepdim=True), 0),
    "normalised": (scaled(lambda m, y: m.expand(-1, y.shape[1], -1, -1).softmax(1)), 0),
    "added": (lambda m, y: y + m.expand(-1, y.shape[1], -1, -1), 0),
    "index": (looked_up(lambda i, y: i.unsqueeze(2).expand(i.shape[0], i.shape[1], y.shape[2])), 8),
    "tiled index": (looked_up(lambda i, y: i[..., None].tile(1, 1, y.shape[2])), 8),
    "repeated index": (looked_up(lambda i, y: i.unsqueeze(-1).repeat(1, 1, y.shape[-1]).long()), 8),
    "hard-coded index": (looked_up(lambda i, y: i.unsqueeze(2).expand(-1, -1, 8)), 0),
    "padded": (lambda m, y: y * F.pad(m, (0, 0, 0, 0, 0, y.shape[1] - 1)), 0),
}


@pytest.mark.parametrize(("function", "exact"), FUNCTIONS.values(), ids=FUNCTIONS)
def test_what_is_spread_is_as_wide_as_it_must_be(function, exact):
    check(Spread(function), images(), exact=exact)
