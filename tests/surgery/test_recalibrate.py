"""Recalibration: statistics of the batches given, and everything else as it was."""

import copy
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import prunus
from prunus.errors import DataError, EditError


class Net(nn.Module):
    """Two norms in a row, one that evaluation does not reach, one in evaluation, dropout, a frozen layer."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, momentum=0.3), nn.ReLU(), nn.Dropout(0.5))
        self.second = nn.Sequential(nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5))
        self.auxiliary = nn.BatchNorm2d(4)
        self.second[1].eval()
        self.second[0].requires_grad_(False)
        for norm in (self.first[1], self.second[1], self.auxiliary):
            nn.init.normal_(norm.running_mean)
            nn.init.uniform_(norm.running_var)
            norm.num_batches_tracked.fill_(7)

    def forward(self, images, scale=1.0):
        hidden = self.first(images) * scale
        if self.training:
            self.auxiliary(hidden)
        return self.second(hidden)


def batches(count=3):
    torch.manual_seed(3)
    return [2 * torch.randn(4 + number, 3, 8, 8) + number for number in range(count)]


def test_the_statistics_are_the_means_over_the_batches():
    torch.manual_seed(0)
    net = Net()
    assert prunus.recalibrate(net, batches()) is net
    outputs = [net.first[0](batch) for batch in batches()]
    means = torch.stack([each.mean((0, 2, 3)) for each in outputs]).mean(0)
    variances = torch.stack([each.var((0, 2, 3)) for each in outputs]).mean(0)
    torch.testing.assert_close(net.first[1].running_mean, means)
    torch.testing.assert_close(net.first[1].running_var, variances)
    hidden = [torch.relu(nn.functional.batch_norm(out, None, None, training=True)) for out in outputs]
    second = torch.stack([net.second[0](each).mean((0, 2, 3)) for each in hidden]).mean(0)  # without dropout
    torch.testing.assert_close(net.second[1].running_mean, second)
    assert net.first[1].num_batches_tracked == 3


def test_it_is_what_torch_makes_of_them_in_training_mode():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4))
    other = copy.deepcopy(net)
    prunus.recalibrate(net, batches())
    torch.optim.swa_utils.update_bn(batches(), other)
    assert all(torch.equal(each, other.state_dict()[name]) for name, each in net.state_dict().items())


def test_everything_else_is_as_it_was():
    net = Net()
    parameters = {path: each.detach().clone() for path, each in net.named_parameters()}
    frozen = [each.requires_grad for each in net.parameters()]
    modes, momenta = [each.training for each in net.modules()], [0.3, 0.1, 0.1]
    auxiliary = {name: each.clone() for name, each in net.auxiliary.named_buffers()}
    loader = DataLoader(TensorDataset(torch.randn(12, 3, 8, 8), torch.arange(12)), batch_size=4, shuffle=True)

    def drawing():
        for batch in loader:
            yield batch if random.random() + np.random.rand() >= 0 else None

    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    prunus.recalibrate(net, drawing())
    assert random.getstate() == states[0] and np.random.get_state()[1].tolist() == states[1]
    assert torch.equal(torch.get_rng_state(), states[2])
    assert all(torch.equal(each, parameters[path]) for path, each in net.named_parameters())
    assert [each.requires_grad for each in net.parameters()] == frozen
    assert [each.training for each in net.modules()] == modes
    assert [norm.momentum for norm in (net.first[1], net.second[1], net.auxiliary)] == momenta
    assert all(torch.equal(each, auxiliary[name]) for name, each in net.auxiliary.named_buffers())


def test_batches_of_a_loader_and_of_keywords():
    images = batches()
    found = []
    for given in (images, [(each, 1) for each in images], [{"images": each, "scale": 1.0} for each in images]):
        torch.manual_seed(0)
        found.append(prunus.recalibrate(Net(), given).second[1].running_mean)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def failing():
    yield torch.randn(4, 3, 8, 8)
    raise RuntimeError("the disk is gone")


@pytest.mark.parametrize(
    ("given", "error", "told"),
    [
        ([], DataError, "no batches"),
        (iter(()), DataError, "used up"),
        ([torch.randn(4, 3, 8, 8), "image.png"], DataError, "not a str"),
        ([torch.full((4, 3, 8, 8), torch.nan)], DataError, "first.1 are not finite"),
        (failing(), RuntimeError, "the disk is gone"),
        ([torch.randn(4, 3, 8, 8), torch.randn(1, 3, 5, 5)], DataError, "larger batches"),
    ],
)
def test_where_it_fails_the_statistics_are_as_they_were(given, error, told):
    net = Net()
    before, modes = copy.deepcopy(net.state_dict()), [each.training for each in net.modules()]
    with pytest.raises(error, match=told):
        prunus.recalibrate(net, given)
    assert all(torch.equal(each, before[name]) for name, each in net.state_dict().items())
    assert [each.training for each in net.modules()] == modes and net.first[1].momentum == 0.3


@pytest.mark.parametrize("net", [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(3, track_running_stats=False)])
def test_a_network_without_running_statistics_is_refused(net):
    with pytest.raises(EditError, match="no BatchNorm"):
        prunus.recalibrate(net, batches())


def test_a_norm_that_is_frozen_out_of_evaluation_is_refused():
    net = Net()
    net.first[1] = net.second[1] = nn.Identity()
    with pytest.raises(EditError, match="runs in evaluation mode"):
        prunus.recalibrate(net, batches())


def test_after_a_cut_in_one_shot_the_norms_fit_again():
    torch.manual_seed(0)
    images = torch.randn(64, 3, 8, 8) + 1
    net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.BatchNorm2d(16))
    nn.init.ones_(net[1].bias)
    prunus.recalibrate(net, images.split(32))
    groups = prunus.trace(net, images[:1])
    small = prunus.apply(prunus.select(net, groups, budget=prunus.Budget(macs=0.4)), net).eval()
    assert prunus.trace(small, images[:1]).macs() <= 0.4 * groups.macs()

    def far(network):
        return float(network(images).detach().mean((0, 2, 3)).abs().max())

    assert far(net.eval()) < 0.05
    assert far(small) > 0.3
    prunus.recalibrate(small, images.split(32))
    assert far(small) < 0.05
