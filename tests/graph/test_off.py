"""Channels that are off: zero wherever they are read, with the values that the network has."""

import nets
import pytest
import torch
from idioms import images
from torch import nn
from torch.nn.utils import prune

import prunus


def conv(inner, outer):
    return nn.Conv2d(inner, outer, 3, padding=1)


class Frozen(nn.Module):
    """Batch norm spelled out with buffers (DETR, detectron2)."""

    def __init__(self, size):
        super().__init__()
        for name, value in (("weight", 1.0), ("bias", 0.1), ("running_mean", 0.3), ("running_var", 2.0)):
            self.register_buffer(name, torch.full((size,), value))

    def forward(self, x):
        weight, bias, mean, variance = (each.view(1, -1, 1, 1) for each in self.buffers())
        scale = weight * (variance + 1e-5).rsqrt()
        return x * scale + (bias - mean * scale)


class Normed(nn.Module):
    """Two layers with a norm and an activation between; the first layer's output may have another reader."""

    def __init__(self, norm, activation, *, read):
        super().__init__()
        self.first, self.norm, self.activation, self.last = conv(3, 8), norm, activation, conv(8, 2)
        self.aside = conv(8, 2) if read else None

    def forward(self, x):
        y = self.first(x)
        z = self.last(self.activation(self.norm(y)))
        return z if self.aside is None else z + self.aside(y)


NORMED = {
    "relu": (nn.BatchNorm2d(8), nn.ReLU(), False, 3),
    "silu": (nn.BatchNorm2d(8), nn.SiLU(), False, 3),
    "instance": (nn.InstanceNorm2d(8, affine=True), nn.ReLU(), False, 3),
    "frozen": (Frozen(8), nn.ReLU(), False, 3),
    "read elsewhere": (nn.BatchNorm2d(8), nn.ReLU(), True, 0),
}


def removed(model, inputs):
    """Remove what is off; return how many parameters went, after comparing the outputs."""
    small = prunus.apply(prunus.select(model, prunus.trace(model, inputs)), model)
    assert (model(inputs) - small(inputs)).abs().max() <= 1e-12 * model(inputs).abs().max()
    return small


@pytest.mark.parametrize(("norm", "activation", "read", "off"), NORMED.values(), ids=NORMED)
def test_a_kernel_before_a_norm_of_zeros_goes(norm, activation, read, off):
    model = nets.randomised(Normed(norm, activation, read=read), seed=0).double().eval()
    with torch.no_grad():
        model.norm.weight[2:5], model.norm.bias[2:5] = 0, 0
    assert removed(model, images().double()).first.weight.shape[0] == 8 - off


def test_channels_that_are_not_zero_behind_the_activation_stay():
    model = nets.randomised(Normed(nn.BatchNorm2d(8), nn.Sigmoid(), read=False), seed=0).double().eval()
    with torch.no_grad():
        model.norm.weight.zero_(), model.norm.bias.zero_()
    groups = prunus.trace(model, images().double())
    assert not bool(groups.off(model).any())
    with pytest.raises(prunus.errors.BudgetError, match="sigmoid"):
        prunus.select(model, groups)


def test_a_norm_without_scale_is_zero_only_where_its_mean_is():
    model = nets.randomised(Normed(nn.BatchNorm2d(8, affine=False), nn.ReLU(), read=False), seed=0).double().eval()
    with torch.no_grad():
        model.first.weight[2:5], model.first.bias[2:5], model.norm.running_mean[2:4] = 0, 0, 0
    assert removed(model, images().double()).first.weight.shape[0] == 6


def masked():
    model = nn.Sequential(conv(3, 8), nn.ReLU(), conv(8, 6), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 64, 2))
    model = nets.randomised(model, seed=0).double().eval()
    for layer in (model[0], model[2]):
        prune.ln_structured(layer, "weight", 0.5, 2, 0)
        prune.CustomFromMask.apply(layer, "bias", layer.weight_mask[:, 0, 0, 0])
    prune.l1_unstructured(model[5], "weight", 0.1)
    return model


def test_masks_are_read_and_cut_with_their_layers():
    model, inputs = masked(), images().double()
    model(inputs).sum().backward()
    small = removed(model, inputs)
    assert [small[0].weight_orig.shape, small[0].weight_mask.shape] == [(4, 3, 3, 3)] * 2
    assert small[2].weight.shape == (3, 4, 3, 3) and small[2].out_channels == 3
    small.train()(inputs).sum().backward()
    torch.optim.SGD(small.parameters(), 0.1).step()
    small.eval()(inputs)
    assert torch.equal(small[5].weight, small[5].weight_orig * small[5].weight_mask)
    before = small(inputs)
    prune.remove(small[0], "weight")
    assert torch.equal(small(inputs), before) and small[0].weight.shape == (4, 3, 3, 3)


def test_a_masked_network_keeps_the_law():
    record = prunus.check_removal(masked(), images().double())
    assert record.removed > 0 and record.max_rel_diff <= 1e-12


def test_groups_without_some_know_nothing_of_values():
    model = masked()
    groups = prunus.trace(model, images().double())
    assert groups.off is not None and int(groups.off(model).sum()) == 7
    assert groups.without(groups.off(model)).off is None
