"""Weights that are computed: weight norm, spectral norm, standardised; filters that nobody trains."""

import pytest
import torch
from idioms import check, images, reasons, tokens
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

import prunus


def conv(inner, outer):
    return nn.Conv2d(inner, outer, 3, padding=1)


class Standardised(nn.Conv2d):
    """A convolution with weights of mean 0 and variance 1 for each output."""

    def forward(self, x):
        mean = self.weight.mean((1, 2, 3), keepdim=True)
        variance = self.weight.var((1, 2, 3), keepdim=True, unbiased=False)
        weight = (self.weight - mean) / torch.sqrt(variance + 1e-5)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


class Blur(nn.Module):
    """A depthwise filter in a buffer, its number of groups in an attribute."""

    def __init__(self, channels):
        super().__init__()
        self.channels = channels
        self.register_buffer("filter", torch.rand(channels, 1, 3, 3))

    def forward(self, x):
        return F.conv2d(x, self.filter, padding=1, groups=self.channels)


def test_weight_norm_zeroes_the_length_not_the_direction():
    model = nn.Sequential(weight_norm(conv(3, 8)), nn.ReLU(), weight_norm(conv(8, 6)), nn.ReLU(), conv(6, 2))
    groups = check(model, images(), exact=6)  # the inputs of a normalised weight change its norm
    roles = {
        slot.path: slot.role for slot in groups.slots if slot.path.startswith("2.parametrizations") and not slot.dim
    }
    assert set(roles.values()) == {"producer", "statistic"}


def test_spectral_norm_does_not_see_zero_rows():
    check(nn.Sequential(spectral_norm(conv(3, 8)), nn.ReLU(), conv(8, 6), nn.ReLU(), conv(6, 2)), images(), exact=14)


def test_standardised_weights_of_zero_rows_are_zero():
    check(nn.Sequential(Standardised(3, 8, 3), nn.ReLU(), conv(8, 6), nn.ReLU(), conv(6, 2)), images(), exact=14)
    groups = check(
        nn.Sequential(conv(3, 8), nn.ReLU(), Standardised(8, 6, 3), nn.ReLU(), conv(6, 2)), images(), exact=6
    )
    assert "aten::mean over the channels" in reasons(groups)


def test_a_filter_in_a_buffer_goes_along_and_need_not_be_zero():
    groups = check(nn.Sequential(conv(3, 8), Blur(8), nn.ReLU(), conv(8, 2)), images(), exact=8)
    assert [one.name for one in groups.attributes] == ["channels"]
    assert next(slot.role for slot in groups.slots if slot.path == "1.filter") == "statistic"
