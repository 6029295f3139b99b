"""Optimizers in a wrapper follow the rule of the one inside; those whose rule is not known are named once."""

import warnings

import pytest
import torch
from torch import nn

import prunus
from prunus.penalties import optimizer_rule

accelerate = pytest.importorskip("accelerate")

OPTIMIZERS = {
    "AdamW": lambda p: torch.optim.AdamW(p, lr=1e-2),
    "SGD": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
    "Nesterov": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
}


def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 4))


def trained(make, *, wrapped):
    accelerator, model = accelerate.Accelerator(cpu=True), build()
    optimizer = accelerator.prepare(make(model.parameters()))
    images, labels = torch.randn(32, 3, 8, 8, generator=torch.Generator().manual_seed(1)), torch.arange(32) % 4
    groups = prunus.trace(model, images[:1])
    penalty = prunus.GroupLasso(strength=0.05).bind(model, groups)
    for _ in range(20):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
        rate = optimizer.param_groups[0]["lr"]
        penalty.prox_(rate, optimizer if wrapped else optimizer.optimizer)
    return model, optimizer, groups


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_accelerates_wrapper_is_looked_through(name):
    inside, _, _ = trained(OPTIMIZERS[name], wrapped=False)
    outside, optimizer, groups = trained(OPTIMIZERS[name], wrapped=True)
    assert all(torch.equal(a, b) for a, b in zip(inside.parameters(), outside.parameters(), strict=True))
    plan = prunus.select(outside, groups, budget=prunus.Budget(macs=0.5))
    small = prunus.apply(plan, outside)
    prunus.carry_(plan, optimizer, outside, small)
    held = {id(each) for group in optimizer.optimizer.param_groups for each in group["params"]}
    assert held == set(map(id, small.parameters()))


@pytest.mark.parametrize("kind", ["NAdam", "RAdam", "RMSprop", "Adagrad"])
def test_an_optimizer_whose_rule_is_not_known_is_named_once(kind):
    optimizer_rule._warn_of_plain_steps.cache_clear()
    model = build()
    optimizer = getattr(torch.optim, kind)(model.parameters(), lr=1e-2)
    groups = prunus.trace(model, torch.randn(1, 3, 8, 8))
    penalty = prunus.GroupLasso(strength=0.05).bind(model, groups)
    with pytest.warns(UserWarning, match=f"{kind}'s is not known"):
        penalty.prox_(1e-2, optimizer)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        penalty.prox_(1e-2, optimizer)
        optimizer_rule._warn_of_plain_steps.cache_clear()
        prunus.GroupLasso(strength=0.05, coupled=False).bind(model, groups).prox_(1e-2, optimizer)
        penalty.prox_(1e-2)
