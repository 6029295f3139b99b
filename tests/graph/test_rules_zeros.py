"""Zeros beside channels: as many as the widths say, or a fixed number."""

import pytest
import torch
from idioms import Call, check, images, reasons, tokens
from torch import nn
from torch.nn import functional as F


def conv(inner, outer):
    return nn.Conv2d(inner, outer, 3, padding=1)


class Shortcut(nn.Module):
    """A skip of fewer channels than what it is added to: the missing ones are zeros (ENet, ResNet's option A)."""

    def __init__(self, missing, outer=20):
        super().__init__()
        self.stem, self.main, self.last = conv(3, 10), conv(10, outer), conv(outer, 2)
        self.missing, self.outer, self.ten = missing, outer, 10

    def forward(self, x):
        x = self.stem(x).relu()
        main = self.main(x)
        return self.last(self.missing(self, x, main) + main)


def zeros(x, num):
    return torch.cat([x, torch.zeros(x.shape[0], num, *x.shape[2:], dtype=x.dtype)], 1)


MISSING = {
    "cat": (lambda own, x, main: zeros(x, main.shape[1] - x.shape[1]), 20, 20),
    "before": (lambda own, x, main: zeros(x, main.shape[1] - x.shape[1]).flip(1).flip(1), 20, 20),
    "new_zeros": (lambda own, x, main: torch.cat([x.new_zeros(main[:, x.shape[1] :].shape), x], 1), 20, None),
    "pad": (lambda own, x, main: F.pad(x, (0, 0, 0, 0, 0, main.shape[1] - x.shape[1])), 20, 20),
    "pad before": (lambda own, x, main: F.pad(x, (0, 0, 0, 0, main.shape[1] - x.shape[1], 0)), 20, 20),
    "both sides": (lambda own, x, main: F.pad(x, (0, 0, 0, 0, 5, main.shape[1] - x.shape[1] - 5)), 20, 10),
    "fixed": (lambda own, x, main: zeros(x, 10), 20, 10),
    "fixed pad": (lambda own, x, main: F.pad(x, (0, 0, 0, 0, 4, 6)), 20, 10),
    "ones": (lambda own, x, main: F.pad(x, (0, 0, 0, 0, 0, main.shape[1] - x.shape[1]), value=1.0), 20, 10),
    "as wide as the skip": (lambda own, x, main: zeros(x, x.shape[1]), 20, 0),
    "kept": (lambda own, x, main: zeros(x, own.ten), 20, 20),
    "kept sum": (lambda own, x, main: zeros(x, own.outer - x.shape[1]), 20, 0),
}


@pytest.mark.parametrize(("missing", "outer", "exact"), MISSING.values(), ids=MISSING)
def test_missing_channels_are_zeros(missing, outer, exact):
    check(Shortcut(missing, outer), images(), exact=exact)


class Cell(nn.Module):
    """A recurrent convolution (ConvLSTM) whose state is zeros at first."""

    def __init__(self, *, attribute):
        super().__init__()
        self.hidden, self.attribute = 6, attribute
        self.gates, self.last = conv(3 + 6, 4 * 6), conv(6, 2)

    def forward(self, x):
        size = self.hidden if self.attribute else self.gates.out_channels // 4
        hidden = torch.zeros(x.shape[0], size, *x.shape[2:], dtype=x.dtype)
        cell = hidden
        for _ in range(3):
            i, f, o, g = self.gates(torch.cat([x, hidden], 1)).chunk(4, 1)
            cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
            hidden = o.sigmoid() * cell.tanh()
        return self.last(hidden)


@pytest.mark.parametrize("attribute", [True, False])
def test_a_recurrent_convolution_loses_parts_of_its_state(attribute):
    groups = check(Cell(attribute=attribute), images(), exact=6)
    assert not attribute or {one.name for one in groups.attributes} == {"hidden"}


class Spelled(nn.Module):
    """A gated recurrent unit in linear layers or convolutions, one of which reads zeros at first."""

    def __init__(self, layer, first):
        super().__init__()
        self.hidden, self.first = 6, first
        self.input, self.state, self.last = layer(3, 12), layer(6, 12), layer(6, 2)

    def forward(self, x):
        state = self.first(x, self.hidden)
        for _ in range(2):
            gate, new = (self.input(x) + self.state(state)).chunk(2, 1)
            state = (1 - gate.sigmoid()) * new.tanh() + gate.sigmoid() * state
        return self.last(state)


FIRST = {
    "zeros": (lambda x, hidden: torch.zeros(x.shape[0], hidden, *x.shape[2:], dtype=x.dtype), 6),
    "new": (lambda x, hidden: x.new_zeros(x.shape[0], hidden, *x.shape[2:]), 6),
    "ones": (lambda x, hidden: x.new_ones(x.shape[0], hidden, *x.shape[2:]), 0),
    "fixed": (lambda x, hidden: x.new_zeros(x.shape[0], 6, *x.shape[2:]), 0),
}


@pytest.mark.parametrize(("first", "exact"), FIRST.values(), ids=FIRST)
@pytest.mark.parametrize("layer", [nn.Linear, lambda inner, outer: nn.Conv2d(inner, outer, 1)], ids=["linear", "conv"])
def test_a_layer_may_read_a_state_of_zeros(layer, first, exact):
    check(Spelled(layer, first), torch.randn(2, 3) if layer is nn.Linear else images(), exact=exact)


class Positions(nn.Module):
    """Zeros put behind positions, of as many as there are channels: they count nothing."""

    def __init__(self):
        super().__init__()
        self.first, self.last, self.size = nn.Linear(12, 8), nn.Linear(8, 2), 8

    def forward(self, x):
        x = self.first(x).view(x.shape[0], -1, self.size)
        x = torch.cat([x, x.new_zeros(x.shape[0], 8, x.shape[2])], 1)
        return self.last(x)


def test_zeros_behind_positions_are_as_wide_as_the_channels():
    groups = check(Positions(), tokens(), exact=8)
    assert {one.name for one in groups.attributes} == {"size"}


def test_zeros_that_a_layer_alone_reads_stay():
    groups = check(Call(lambda x: zeros(x, 4), conv(3, 8), conv(12, 2)), images(), exact=8)
    assert "no parameter produces this channel" in reasons(groups)


class Chance(nn.Module):
    """As many zeros as the other branch is wide, which is as wide as this one."""

    def __init__(self, size):
        super().__init__()
        self.left, self.right, self.last = conv(3, size), conv(3, size), conv(2 * size, 2)

    def forward(self, x):
        left, right = self.left(x), self.right(x)
        none = torch.zeros(x.shape[0], left.shape[1], *x.shape[2:], dtype=x.dtype)
        return self.last(torch.cat([left, none], 1) + torch.cat([none, right], 1))


@pytest.mark.parametrize("size", [2, 3, 8, 12])
def test_zeros_that_are_as_wide_by_chance_stay(size):
    check(Chance(size), images(), exact=0)


class Borrowed(nn.Module):
    """A constant as wide as one branch meets another one, which is as wide by chance."""

    def __init__(self, function, size):
        super().__init__()
        self.first, self.second, self.function = nn.Linear(12, size), nn.Linear(12, size), function
        self.layer, self.last, self.beside = nn.Linear(size, 2), nn.Linear(size, 2), nn.Linear(size, 2)

    def forward(self, x):
        first, second = self.first(x), self.second(x)
        none = x.new_zeros(second.shape[-1])
        return self.function(self, first, none).sum(1) + self.beside(second).sum(1)


BORROWED = {
    "added": lambda own, x, none: own.last(x + none),
    "read": lambda own, x, none: own.last(x) + own.last(none),
    "behind": lambda own, x, none: own.last(torch.cat([x, none.expand(x.shape[0], 1, -1)], 1)),
}


@pytest.mark.parametrize("function", BORROWED.values(), ids=BORROWED)
@pytest.mark.parametrize("size", [3, 8, 16])
def test_a_constant_that_follows_another_layer_is_told_apart(function, size):
    check(Borrowed(function, size), tokens(), exact=0)
