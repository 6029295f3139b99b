"""Whole residual blocks as choices of a budget in milliseconds, on a fake target that charges for each convolution."""

import pytest
import torch
from modelled_meter import FakeMeter
from torch import nn

import prunus
from prunus.budget.blocks import plan_without


class Block(nn.Module):
    """A bottleneck: three convolutions beside a skip connection."""

    def __init__(self, width):
        super().__init__()
        inner = width // 2
        self.branch = nn.Sequential(
            nn.Conv2d(width, inner, 1, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU(),
            nn.Conv2d(inner, inner, 3, padding=1, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU(),
            nn.Conv2d(inner, width, 1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x):
        return torch.relu(x + self.branch(x))


def network():
    torch.manual_seed(0)
    blocks = [Block(24) for _ in range(4)]
    return nn.Sequential(
        nn.Conv2d(3, 24, 3), nn.ReLU(), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 5)
    )


@pytest.fixture(scope="module")
def traced():
    model, images = network().eval(), torch.randn(2, 3, 8, 8)
    return model, images, prunus.trace(model, images)


def importances(groups):
    """Return importances by which the second block matters least."""
    values = 1 + torch.rand(len(groups), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for number, name in enumerate(groups.layer_names):
        if name.startswith("3."):
            values[groups.layers == number] *= 0.01
    return values


def test_a_block_goes_where_its_milliseconds_are_worth_more_than_its_channels(traced):
    model, images, groups = traced
    meter = FakeMeter(images)
    budget = prunus.Budget(latency=0.8, min_share=0)
    plan = prunus.select(model, groups, budget=budget, importance=importances(groups), meter=meter)
    small = prunus.apply(plan, model)
    assert not [module for module in small[3].modules() if isinstance(module, nn.Conv2d)]
    assert all(isinstance(small[place], Block) for place in (2, 4, 5))
    assert meter(small) <= 0.8 * meter(model)
    assert meter.reached.best.measured_ms == pytest.approx(meter(small))
    assert small(images).shape == (2, 5)


def test_blocks_stay_where_each_layer_keeps_a_share(traced):
    model, images, groups = traced
    meter = FakeMeter(images)
    budget = prunus.Budget(latency=0.995, min_share=0.1)
    plan = prunus.select(model, groups, budget=budget, importance=importances(groups), meter=meter)
    assert all(isinstance(prunus.apply(plan, model)[place], Block) for place in (2, 3, 4, 5))
    with pytest.raises(prunus.errors.BudgetError, match="smallest network takes"):
        budget = prunus.Budget(latency=0.5, min_share=0.1)
        prunus.select(model, groups, budget=budget, importance=importances(groups), meter=meter)


def test_layers_of_a_block_vanish_together_or_not_at_all(traced):
    model, images, groups = traced
    for latency in (0.9, 0.7, 0.5, 0.3):
        meter = FakeMeter(images)
        budget = prunus.Budget(latency=latency, min_share=0)
        values = torch.rand(len(groups), generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        small = prunus.apply(prunus.select(model, groups, budget=budget, importance=values, meter=meter), model)
        left = [len([m for m in small[place].modules() if isinstance(m, nn.Conv2d)]) for place in (2, 3, 4, 5)]
        assert set(left) <= {0, 3}
        assert meter(small) <= latency * meter(model)


def test_a_plan_without_a_block_replaces_it_by_its_constant(traced):
    model, images, groups = traced
    names = {number for number, name in enumerate(groups.layer_names) if name.startswith("3.")}
    gone = torch.tensor([int(layer) in names for layer in groups.layers])
    small = prunus.apply(plan_without(model, groups, gone, images), model)
    zeroed = prunus.apply(prunus.Plan(), model)
    with torch.no_grad():
        for module in zeroed[3].branch:
            if isinstance(module, nn.Conv2d):
                module.weight.zero_()
        for place in (1, 4):
            zeroed[3].branch[place].weight.zero_()
            zeroed[3].branch[place].bias.zero_()
        assert torch.allclose(small(images), zeroed(images), atol=1e-6)
