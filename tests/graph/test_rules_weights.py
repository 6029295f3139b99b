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


def test_cutting_in_training_leaves_the_power_iteration_alone():
    model = nn.Sequential(conv(3, 8), spectral_norm(conv(8, 6)), nn.ReLU(), conv(6, 2)).train()
    record = prunus.check_removal(model, images())
    assert record.removed == 7 and record.max_rel_diff <= 1e-5


class Matrices(nn.Module):
    """Two matrices without a layer around them."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Parameter(torch.randn(16, 12)), nn.Parameter(torch.randn(2, 16))

    def forward(self, x):
        return torch.relu(x @ self.first.T) @ self.second.T


def test_coverage_leaves_no_computed_or_bare_weight_out():
    layers = [weight_norm(conv(3, 8)), nn.ReLU(), spectral_norm(conv(8, 6)), nn.ReLU(), Standardised(6, 4, 3)]
    groups = prunus.trace(nn.Sequential(*layers, conv(4, 2)), images())
    assert groups.widths() == {"0": 8, "2": 6, "4": 4, "5": 2}
    assert [(row.layer, row.exact) for row in groups.coverage().rows] == [("0", 8), ("2", 0), ("4", 4), ("5", 0)]
    assert len(set(groups.layer_names)) == len(groups.layer_names)
    bare = prunus.trace(Matrices(), tokens())
    assert bare.widths() == {"first": 16, "second": 2} and bare.layer_names == ("first", "second")


class Compared(nn.Module):
    """Features held against the rows of a matrix."""

    def __init__(self, function):
        super().__init__()
        self.first, self.rows, self.function = nn.Linear(12, 8), nn.Parameter(torch.randn(4, 8)), function

    def forward(self, x):
        return self.function(torch.relu(self.first(x)), self.rows)


@pytest.mark.parametrize(
    "function",
    [
        lambda x, rows: F.linear(x, F.normalize(rows)),
        lambda x, rows: x @ rows.T / rows.norm(dim=1),
        lambda x, rows: x @ (rows / rows.norm()).T,
        lambda x, rows: x.pow(2).sum(-1, keepdim=True) - 2 * x @ rows.T + rows.pow(2).sum(1),
        lambda x, rows: x @ rows.T + rows.abs().sum(),
    ],
    ids=["cosine", "norm", "whole", "distance", "sum"],
)
def test_a_weight_whose_rows_are_summed_up_must_be_zero_itself(function):
    groups = check(Compared(function), tokens(), exact=8)
    assert next(slot.role for slot in groups.slots if (slot.path, slot.dim) == ("rows", 1)) == "producer"


@pytest.mark.parametrize("norm", [nn.utils.weight_norm, nn.utils.spectral_norm])
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_weights_that_a_hook_keeps_are_refused_with_the_way_out(norm):
    model = nn.Sequential(norm(conv(3, 8)), nn.ReLU(), conv(8, 6), nn.ReLU(), conv(6, 2)).eval()
    with torch.no_grad():
        model(images())  # the kept weight can be copied then
    groups = prunus.trace(model, images())
    assert int(groups.exact.sum()) == 6 and "torch.nn.utils.parametrizations are followed" in reasons(groups)
    assert prunus.check_removal(model, images()).removed == 3
