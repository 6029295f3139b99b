"""With each optimizer, proximal training of a convex quadratic reaches the minimiser, which is known beforehand.

The target is made from the answer: if s is a subgradient of r at x, then x minimises 1/2 ||x - (x + s)||^2 + r.
"""

import pytest
import torch
from torch import nn

import prunus
from prunus.penalties import Combined

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.03, momentum=0.9),
    "dampening": lambda p: torch.optim.SGD(p, lr=0.04, momentum=0.9, dampening=0.3),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.02, momentum=0.9, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.05),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.05, weight_decay=0.0),
}
PENALTIES = {
    "group": prunus.GroupLasso(strength=0.1),
    "group, weaker first": prunus.GroupLasso(strength=0.1, first_layers=1),
    "sparse group": prunus.SparseGroupLasso(strength=0.1, alpha=0.5),
    "lasso": prunus.SparseGroupLasso(strength=0.1, alpha=1.0),
    "nuclear": prunus.NuclearNorm(strength=0.3),
    "nuclear and group": Combined(penalties=(prunus.NuclearNorm(strength=0.2), prunus.GroupLasso(strength=0.1))),
}
EUCLIDEAN_ONLY = ("nuclear", "nuclear and group")  # no closed form in Adam's metric


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)).double()


def train(model, penalty, target, optimizer, steps=200):
    rate = optimizer.param_groups[0]["lr"]
    for step in range(steps):
        size = rate * (1 - step / steps)
        for group in optimizer.param_groups:
            group["lr"] = size
        optimizer.zero_grad()
        sum(0.5 * (p - target[name]).square().sum() for name, p in model.named_parameters()).backward()
        optimizer.step()
        penalty.after_step_(size, optimizer)


def objective(model, penalty, target):
    with torch.no_grad():
        distance = sum(0.5 * (p - target[name]).square().sum() for name, p in model.named_parameters())
        return float(distance + penalty.value())


def answer_and_target(settings, groups):
    """A sparse, low-rank x, and x + s: the proximal step of a point gives x, and what it took is s."""
    answer = network()
    target = {  # units from small, which go, to large
        name: (p * torch.linspace(0.2, 3, len(p)).reshape(-1, *[1] * (p.dim() - 1))).detach()
        for name, p in answer.named_parameters()
    }
    with torch.no_grad():
        for name, parameter in answer.named_parameters():
            parameter.copy_(target[name])
    if isinstance(settings, Combined):  # Dykstra's algorithm: the prox of a sum from the proxes of its terms
        dykstra(answer, settings.bind(answer, groups).penalties)
    else:
        settings.bind(answer, groups).prox_(1.0)
    return answer, target


@torch.no_grad()
def dykstra(model, penalties, rounds=200):
    corrections = [[torch.zeros_like(p) for p in model.parameters()] for _ in penalties]
    for _ in range(rounds):
        for penalty, terms in zip(penalties, corrections, strict=True):
            before = []
            for p, term in zip(model.parameters(), terms, strict=True):
                p.add_(term)
                before.append(p.clone())
            penalty.prox_(1.0)
            for p, term, old in zip(model.parameters(), terms, before, strict=True):
                term.copy_(old - p)


@pytest.mark.parametrize("name", PENALTIES)
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_training_reaches_the_known_minimiser(kind, name):
    if name in EUCLIDEAN_ONLY and kind.startswith("adam"):
        pytest.skip("the nuclear norm's proximal operator has no closed form in Adam's metric; its card says so")
    settings, model = PENALTIES[name], network()
    groups = prunus.trace(model, torch.zeros(1, 6, dtype=torch.float64))
    answer, target = answer_and_target(settings, groups)
    assert any(bool((p == 0).any()) for p in answer.parameters()) or name == "nuclear"
    penalty = settings.bind(model, groups)
    train(model, penalty, target, OPTIMIZERS[kind](model.parameters()))
    best = objective(answer, settings.bind(answer, groups), target)
    assert objective(model, penalty, target) == pytest.approx(best, rel=1e-4)
    for (path, found), (_, expected) in zip(model.named_parameters(), answer.named_parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=5e-3, msg=lambda text, path=path: f"{path}: {text}")


GROUPS = {
    "plain, momentum": ({"momentum": 0.0}, {"momentum": 0.9}),
    "nesterov, momentum": ({"momentum": 0.9, "nesterov": True}, {"momentum": 0.9}),
    "plain, dampening": ({"momentum": 0.0}, {"momentum": 0.9, "dampening": 0.3}),
}


@pytest.mark.parametrize("name", ["group", "sparse group", "nuclear and group"])
@pytest.mark.parametrize("kind", GROUPS)
@pytest.mark.parametrize("turned", [False, True], ids=["biases first", "weights first"])
def test_each_parameter_follows_the_rule_of_its_group(kind, name, turned):
    """A unit's bias and its weights lie in two groups, as is the custom; their order does not matter."""
    settings, model = PENALTIES[name], network()
    groups = prunus.trace(model, torch.zeros(1, 6, dtype=torch.float64))
    answer, target = answer_and_target(settings, groups)
    kinds = [[p for p in model.parameters() if (p.dim() > 1) == wide] for wide in (False, True)]
    held = [{"params": params, **rule} for params, rule in zip(kinds, GROUPS[kind], strict=True)]
    train(model, settings.bind(model, groups), target, torch.optim.SGD(held[::-1] if turned else held, lr=0.08))
    for (path, found), (_, expected) in zip(model.named_parameters(), answer.named_parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=5e-3, msg=lambda text, path=path: f"{path}: {text}")


def test_the_metric_of_adam_is_that_of_each_group():
    settings, model = PENALTIES["group"], network()
    groups = prunus.trace(model, torch.zeros(1, 6, dtype=torch.float64))
    answer, target = answer_and_target(settings, groups)
    kinds = [[p for p in model.parameters() if (p.dim() > 1) == wide] for wide in (False, True)]
    held = [{"params": kinds[0], "betas": (0.5, 0.9), "eps": 0.1}, {"params": kinds[1], "betas": (0.9, 0.999)}]
    train(model, settings.bind(model, groups), target, torch.optim.Adam(held, lr=0.05))
    for found, expected in zip(model.parameters(), answer.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=5e-3)


@pytest.mark.parametrize("kind", ["momentum", "nesterov", "adam", "adamw"])
def test_the_plain_step_would_miss_it(kind):
    """Why the proximal step asks for the optimizer: without, momentum and Adam go elsewhere."""
    settings, model = PENALTIES["group"], network()
    groups = prunus.trace(model, torch.zeros(1, 6, dtype=torch.float64))
    answer, target = answer_and_target(settings, groups)
    penalty, optimizer = settings.bind(model, groups), OPTIMIZERS[kind](model.parameters())

    class Plain:
        def after_step_(self, size, optimizer):
            penalty.prox_(size)

    train(model, Plain(), target, optimizer)
    best = objective(answer, settings.bind(answer, groups), target)
    assert objective(model, penalty, target) > best * 1.01


def test_a_group_that_the_loss_wants_back_returns_under_adam():
    model = network()
    groups = prunus.trace(model, torch.zeros(1, 6, dtype=torch.float64))
    penalty = prunus.GroupLasso(strength=0.05).bind(model, groups)
    target = {name: p.detach().clone() for name, p in model.named_parameters()}
    penalty.shrink_(torch.where(groups.exact, torch.inf, 0.0).double())
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    train(model, penalty, target, optimizer, steps=100)
    assert bool((penalty.slices.norms()[groups.exact] > 0).any())
