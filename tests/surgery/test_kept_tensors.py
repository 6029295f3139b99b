"""Tensors that a network's own `train` keeps for evaluation (a fused kernel) follow an edit."""

import copy

import nets
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import prunus
from prunus.verify import difference


class Fused(nn.Module):
    """Two convolutions, which are one in evaluation (RepVGG, MobileOne)."""

    def __init__(self, size):
        super().__init__()
        self.first, self.second = nn.Conv2d(size, size, 3, padding=1), nn.Conv2d(size, size, 1)

    @torch.no_grad()
    def train(self, mode=True):
        super().train(mode)
        if mode:
            self.kernel = None
        else:
            kernel = self.first.weight + F.pad(self.second.weight, [1, 1, 1, 1])
            self.kernel = {"weight": kernel, "bias": self.first.bias + self.second.bias}
        return self

    def forward(self, x):
        return self.first(x) + self.second(x) if self.training else F.conv2d(x, **self.kernel, padding=1)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.fused, self.head = nn.Conv2d(3, 8, 3, padding=1), Fused(8), nn.Conv2d(8, 2, 1)

    def forward(self, x):
        return self.head(self.fused(self.stem(x).relu()).relu())


X = torch.randn(2, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
def test_a_fused_kernel_is_as_narrow_as_what_it_is_made_of(training, tmp_path):
    model = nets.randomised(Net(), seed=1).double().train(training)
    kernel = model.fused.kernel
    groups = prunus.trace(model, X)
    assert int(groups.exact.sum()) == 16
    record = prunus.check_removal(model, X)
    assert record.passed and record.removed == 8 and record.max_rel_diff < 1e-12
    assert model.fused.kernel is kernel and model.training is model.fused.training is training
    plan = prunus.select(model, groups, budget=prunus.Budget(params=0.5))
    small = prunus.apply(plan, model)
    assert small.fused.training is training
    if not training:
        assert small.fused.kernel["weight"].shape == small.fused.first.weight.shape != (8, 8, 3, 3)
    prunus.save(tmp_path / "net", small, plan)
    loaded = prunus.load(tmp_path / "net", lambda: Net().double().eval())
    assert torch.equal(loaded(X), small(X))
    assert torch.allclose(small.eval()(X), small.train()(X), atol=1e-12)


def test_a_fused_kernel_follows_in_place():
    model = nets.randomised(Net(), seed=1).double()
    optimizer, teacher = torch.optim.SGD(model.parameters(), lr=1e-3), copy.deepcopy(model).eval()
    shrinker = prunus.Shrinker(model, optimizer, X, budget=prunus.Budget(params=0.5), steps=6)
    shrinker.follow(teacher)
    for _ in range(6):
        optimizer.zero_grad()
        model(X).square().mean().backward()
        optimizer.step()
        shrinker.step()
    assert model.fused.first.out_channels < 8
    assert torch.allclose(model.eval()(X), model.train()(X), atol=1e-12)
    assert teacher.fused.kernel["weight"].shape == teacher.fused.first.weight.shape


class Merged(nn.Linear):
    """A matrix that a low-rank one is merged into in place for evaluation, and taken out of again (LoRA)."""

    def __init__(self, size):
        super().__init__(size, size)
        self.down, self.up = nn.Parameter(torch.randn(2, size)), nn.Parameter(torch.randn(size, 2))
        self.merged = False

    def train(self, mode=True):
        super().train(mode)
        if mode == self.merged:
            self.weight.data += (1 - 2 * mode) * (self.up @ self.down).data
            self.merged = not mode
        return self

    def forward(self, x):
        y = super().forward(x)
        return y if self.merged else y + x @ self.down.T @ self.up.T


class Joined(nn.Module):
    """Two layers that become one for good where the module is put into evaluation."""

    def __init__(self, size):
        super().__init__()
        self.first, self.second = nn.Linear(size, size), nn.Linear(size, size)

    def train(self, mode=True):
        super().train(mode)
        if not mode and "second" in self._modules:
            self.first.weight = nn.Parameter((self.first.weight + self.second.weight).detach())
            self.first.bias = nn.Parameter((self.first.bias + self.second.bias).detach())
            del self.second
        return self

    def forward(self, x):
        return self.first(x) + self.second(x) if "second" in self._modules else self.first(x)


@pytest.mark.parametrize("layer", [Merged, Joined])
def test_evaluating_leaves_what_an_own_train_changes_in_place(layer):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), layer(8), nn.BatchNorm1d(8), nn.Linear(8, 2)).train()
    images = torch.randn(16, 6)
    before, own = nets.state(model), nets.state(model[2])
    difference(model, model, (images,))
    nets.assert_same_state(before, nets.state(model))
    prunus.recalibrate(model, [images])
    nets.assert_same_state(own, nets.state(model[2]))
    assert not getattr(model[2], "merged", False)
