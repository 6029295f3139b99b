"""Channels along a dimension that an operator does not take for channels, and weights that are values elsewhere."""

import nets
import numpy
import pytest
import torch
from idioms import Call, check, images, reasons, tokens
from torch import nn
from torch.nn import functional as F


class Along(nn.Module):
    """[N, tokens, channels] through a layer that works along the tokens, beside a skip."""

    def __init__(self, layer, *, turned=False):
        super().__init__()
        self.first, self.layer, self.last, self.turned = nn.Linear(12, 8), layer, nn.Linear(8, 2), turned

    def forward(self, x):
        x = self.first(x)
        return self.last(x + (self.layer(x.mT).mT if self.turned else self.layer(x)))


class Both(nn.Module):
    """A parameter that one place reads, and another takes for a value."""

    def __init__(self, function, *shape):
        super().__init__()
        self.first, self.shared, self.last = nn.Linear(12, 8), nn.Parameter(torch.zeros(*shape)), nn.Linear(8, 2)
        self.function = function

    def forward(self, x):
        return self.function(self.first(x), self.shared, self.last)


class Buffers(nn.Module):
    """Buffers for whatever a normalisation shifts and scales with."""

    def __init__(self, function):
        super().__init__()
        for name in ("scale", "shift", "mean", "variance"):
            self.register_buffer(name, torch.ones(8))
        self.function = function

    def forward(self, x):
        return self.function(x, self)


def conv(inner, outer):
    return nn.Conv2d(inner, outer, 3, padding=1)


def running(layer):
    """A layer that has seen data."""
    layer.running_mean.fill_(0.5)
    return layer


@pytest.mark.parametrize(
    ("layer", "turned", "exact"),
    [
        (nn.Linear(5, 5), True, 0),
        (nn.Linear(5, 5, bias=False), True, 8),
        (nn.LayerNorm(5), True, 0),
        (nn.LayerNorm(5, bias=False), True, 8),
        (running(nn.BatchNorm1d(5)), False, 0),
        (nn.GroupNorm(5, 5), False, 0),
        (nn.InstanceNorm1d(5), False, 0),
    ],
    ids=["linear", "no bias", "layer norm", "no shift", "batch norm", "group norm", "instance norm"],
)
def test_layers_along_tokens_shift_the_channels(layer, turned, exact):
    check(Along(layer, turned=turned), tokens(), exact=exact)


def put_in_place(x):
    flat = x.flatten(2)
    x.sigmoid_()
    return flat.unflatten(2, x.shape[2:])


@pytest.mark.parametrize(
    ("function", "exact"),
    [
        (nn.LayerNorm((8, 8)), 0),
        (F.instance_norm, 8),
        (lambda x: x.flatten(2).logsumexp(-1)[..., None, None], 0),
        (lambda x: F.max_pool2d(x, 2, return_indices=True)[1].to(x.dtype), 0),
        (lambda x: (x + 0.5) % 1, 0),
        (lambda x: (x.sigmoid() * 10 > 4).to(x.dtype), 0),
        (lambda x: F.softshrink(x + 6, 4.0), 0),
        (put_in_place, 0),
    ],
    ids=["layer norm", "instance norm", "logsumexp", "places", "remainder", "step", "softshrink", "in place"],
)
def test_what_becomes_of_a_channel_of_zeros(function, exact):
    check(Call(function, conv(3, 8), conv(8, 2)), images(), exact=exact)


@pytest.mark.parametrize(
    ("function", "exact"),
    [
        (lambda x, own: F.relu(F.batch_norm(x, own.mean, own.variance, own.scale, own.shift)), 0),
        (lambda x, own: F.batch_norm(x, own.mean, own.variance, own.scale.sigmoid()), 0),
        (lambda x, own: F.instance_norm(x, None, None, own.scale, own.shift), 0),
        (lambda x, own: F.group_norm(x, 2, own.scale, own.shift), 0),
    ],
    ids=["batch", "computed", "instance", "group"],
)
def test_shifts_that_nobody_trains_are_not_zero(function, exact):
    check(nn.Sequential(conv(3, 8), Buffers(function), conv(8, 2)), images(), exact=exact)


def test_statistics_without_a_shift_must_be_zero_too():
    norm = running(nn.InstanceNorm2d(8, track_running_stats=True))
    groups = check(nn.Sequential(conv(3, 8), norm, conv(8, 2)), images(), exact=8)
    assert next(slot.role for slot in groups.slots if slot.path == "1.running_mean") == "producer"


@pytest.mark.parametrize(
    ("function", "shape"),
    [
        (lambda x, rows, last: (x @ rows.T).softmax(-1) @ last(rows), (4, 8)),
        (lambda x, rows, last: last(x + rows[1]) + (x @ rows.T)[..., :2], (4, 8)),
        (
            lambda x, rows, last: last(torch.cat([x, rows.expand(2, -1, -1)], 1)) + (x @ rows.T).sum((1, 2), True),
            (4, 8),
        ),
        (lambda x, row, last: last(x + row) + (x @ row)[..., None], (8,)),
        (lambda x, slope, last: last(F.prelu(x.mT, slope).mT + slope), (8,)),
    ],
    ids=["prototypes", "index", "cat", "vector", "slope"],
)
def test_a_weight_that_is_read_here_and_a_value_there_must_be_zero(function, shape):
    groups = check(Both(function, *shape), tokens(), exact=8)
    assert "producer" in {slot.role for slot in groups.slots if slot.path == "shared" and slot.groups.numel() == 8}


def test_what_is_added_to_a_product_counts():
    def added(x, matrix, last):
        return last(F.relu(torch.addmm(x[0, 0].sigmoid(), x[1], matrix)))

    check(Both(added, 8, 8), tokens(), exact=0)


class Demodulated(nn.Module):
    """A layer of which the code takes the weight alone."""

    def __init__(self):
        super().__init__()
        self.first, self.inner, self.last = conv(3, 8), conv(8, 8), conv(8, 2)

    def forward(self, x):
        weight = self.inner.weight
        weight = weight * torch.rsqrt(weight.pow(2).sum((1, 2, 3), keepdim=True) + 1e-5)
        return self.last(F.conv2d(self.first(x), weight, padding=1))


def test_a_layer_whose_bias_is_not_read_stays():
    groups = check(Demodulated(), images(), exact=8)
    assert "inner.bias is not read" in reasons(groups)


@pytest.mark.parametrize(
    "index",
    [
        [2, 0, 1],
        range(3),
        numpy.array([2, 0, 1]),
        [[0, 1], [2, 0]],
        [True, False, True, False, False, False, True, True],
    ],
    ids=["list", "range", "numpy", "nested", "mask"],
)
def test_positions_are_given_in_any_form(index):
    """Rows of an image picked by what torch would make a tensor of, where the data are."""
    check(Call(lambda x: x[:, :, index].flatten(2).mean(2), nets.conv(3, 8), nn.Linear(8, 2)), images(), exact=8)
