import math

import nets
import pytest
import torch
from torch import nn

import prunus
from prunus.errors import EditError, RecipeError
from prunus.penalties.zeros import zero_groups


def bound(name="plain", strength=0.1, dtype=torch.float64, seed=0):
    case = nets.CASES[name]
    model, inputs = case.model(dtype, seed), case.inputs(dtype, seed)
    groups = prunus.trace(model, inputs)
    return model, groups, prunus.GroupLasso(strength=strength).bind(model, groups), inputs


def test_value_of_a_network_of_two_channels_by_hand():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[3.0, 0.0], [0.0, 2.0]]))
        model[0].bias.copy_(torch.tensor([4.0, 0.0]))
    groups = prunus.trace(model, torch.zeros(1, 2))
    penalty = prunus.GroupLasso(strength=0.5).bind(model, groups)
    # Each group has three numbers: two weights and a bias. The last layer's outputs are not penalised.
    assert penalty.value().item() == pytest.approx(0.5 * math.sqrt(3) * (5 + 2))
    penalty.prox_(step_size=1.0)
    shrunk = 1 - 0.5 * math.sqrt(3) / 5
    assert model[0].weight[0].tolist() == pytest.approx([3 * shrunk, 0])
    assert model[0].bias[0].item() == pytest.approx(4 * shrunk)
    penalty.prox_(step_size=3.0)
    assert model[0].weight[1].tolist() == [0.0, 0.0]  # exactly


def test_value_over_a_residual_sum_counts_all_producers_together():
    model, groups, penalty, _ = bound("residual", strength=1.0)
    expected = 0.0
    for group in groups.exact.nonzero().flatten().tolist():
        tensors = dict(model.named_parameters())
        parts = [
            tensors[m.path].select(m.dim, m.index).flatten()
            for m in groups.members(group)
            if m.role == "producer" and m.path in tensors
        ]
        theta = torch.cat(parts)
        expected += math.sqrt(theta.numel()) * theta.norm().item()
    assert penalty.value().item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", [name for name, case in nets.CASES.items() if case.exact])
def test_prox_makes_groups_zero_that_select_finds(name):
    model, groups, penalty, _ = bound(name, strength=1.0)
    if name == "batch_norm_without_affine":
        model[1].running_mean.zero_()  # a statistic: training brings it to zero, a penalty does not
    untouched = {path: tensor.clone() for path, tensor in model.named_parameters()}
    penalty.prox_(step_size=1e4)
    plan = prunus.select(model, groups)
    assert plan.edits
    assert penalty.value().item() == 0.0
    refused = {m.path for g in groups.refused.nonzero().flatten().tolist() for m in groups.members(g)}
    free = refused - {m.path for g in groups.exact.nonzero().flatten().tolist() for m in groups.members(g)}
    for path in free & untouched.keys():
        assert torch.equal(dict(model.named_parameters())[path], untouched[path])


def test_proximal_gradient_reaches_the_known_minimiser_of_a_quadratic():
    """min 1/2 ||theta - target||^2 + r(theta) has the prox of the target as its solution."""
    model, groups, penalty, _ = bound("residual", strength=0.3)
    target = {path: parameter.detach().clone() for path, parameter in model.named_parameters()}
    expected, _, expected_penalty, _ = bound("residual", strength=0.3)
    expected_penalty.prox_(step_size=1.0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    for _ in range(200):
        optimizer.zero_grad()
        sum(0.5 * (p - target[path]).square().sum() for path, p in model.named_parameters()).backward()
        optimizer.step()
        penalty.prox_(step_size=0.2)
    for (path, found), (_, solution) in zip(model.named_parameters(), expected.named_parameters(), strict=True):
        torch.testing.assert_close(found, solution, rtol=0, atol=1e-9, msg=path)
    assert groups.exact.any()


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, nesterov=True),
        lambda p: torch.optim.Adam(p, lr=0.01),
        lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.9),
    ],
    ids=["sgd", "adam", "rmsprop"],
)
@pytest.mark.filterwarnings("ignore:proximal steps follow the rules of SGD, Adam and AdamW")
def test_zero_groups_stay_zero_under_momentum(make):
    model, groups, penalty, inputs = bound("plain", strength=1e-3)  # each channel ends in a ReLU
    optimizer = make(model.parameters())

    def step():
        optimizer.zero_grad()
        model(*inputs).square().mean().backward()
        optimizer.step()

    for _ in range(3):
        step()
    victims = torch.zeros(len(groups), dtype=torch.bool)
    victims[groups.exact.nonzero().flatten()[::2]] = True
    penalty.shrink_(torch.where(victims, torch.inf, 0.0).double())
    penalty.prox_(0.01, optimizer)
    for _ in range(5):
        step()
        penalty.prox_(0.01, optimizer)
        assert bool((penalty.slices.norms()[victims] == 0).all())


def test_the_momentum_of_unpenalised_zero_parameters_is_left_alone():
    model, _, penalty, inputs = bound("plain")
    nn.init.zeros_(model[-1].weight)
    nn.init.zeros_(model[-1].bias)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9)
    (model(*inputs) - 1).square().sum().backward()
    optimizer.step()
    penalty.prox_(0.0, optimizer)
    assert bool((optimizer.state[model[-1].bias]["momentum_buffer"] != 0).all())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_precision_is_kept(dtype):
    model, _, penalty, _ = bound("plain", dtype=torch.float32)
    model.to(dtype)
    penalty.prox_(0.01)
    assert all(parameter.dtype == dtype for parameter in model.parameters())


def test_what_does_not_fit_is_refused():
    model, groups, _, _ = bound("plain")
    with pytest.raises(EditError, match=r"0\.weight, dimension 0.*trace again"):
        small = prunus.apply(prunus.select(model, groups, budget=prunus.Budget(macs=0.5)), model)
        prunus.GroupLasso().bind(small, groups)
    with pytest.raises(EditError, match="traced on a model with this tensor"):
        prunus.GroupLasso().bind(nn.Linear(2, 2), groups)
    with pytest.raises(RecipeError, match="strength"):
        prunus.GroupLasso(strength=-1)


def test_a_norm_without_affine_ends_exactly_at_zero() -> None:
    """Its running mean decays but never reaches zero by itself; pressed groups' means are cleared with them."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6, affine=False), nn.ReLU(), nn.Conv2d(6, 2, 1))
    images = torch.randn(4, 3, 8, 8)
    model(images)
    groups = prunus.trace(model, images)
    penalty = prunus.GroupLasso().bind(model, groups)
    pressed = groups.exact & (torch.arange(len(groups)) % 2 == 0)
    penalty.shrink_(torch.where(pressed, torch.inf, 0.0))
    assert torch.equal(zero_groups(model, groups), pressed)
