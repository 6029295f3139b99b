"""A proximal operator solves argmin_z 1/2 ||z - x||^2 + r(z), and is non-expansive."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import prunus
from prunus.penalties.prox import group_shrinkage, soft_threshold
from prunus.penalties.slices import GroupSlices

vectors = st.lists(st.floats(-3, 3, allow_subnormal=False), min_size=4, max_size=4).map(
    lambda values: torch.tensor(values, dtype=torch.float64)
)
strengths = st.floats(0, 4)


def lasso(x, strength):
    return soft_threshold(x, strength)


def group(x, strength):
    norms, thresholds = x.norm().reshape(1), torch.tensor([strength], dtype=torch.float64)
    return x * group_shrinkage(norms, thresholds)


def sparse_group(x, strength):
    return group(lasso(x, 0.5 * strength), 0.5 * strength)


# A penalty's value beside its prox: a new one is one line here.
PAIRS = {
    "lasso": (lambda z: z.abs().sum(-1), lasso),
    "group": (lambda z: z.norm(dim=-1), group),
    "sparse group": (lambda z: 0.5 * (z.norm(dim=-1) + z.abs().sum(-1)), sparse_group),
}


@pytest.mark.parametrize("name", PAIRS)
@given(x=vectors, strength=strengths, seed=st.integers(0, 2**16))
@settings(max_examples=60, deadline=None)
def test_nothing_near_or_far_beats_the_prox(name, x, strength, seed):
    value, prox = PAIRS[name]

    def objective(z):
        return 0.5 * (z - x).square().sum(-1) + strength * value(z)

    found = prox(x, strength)
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(200, 4, generator=generator, dtype=torch.float64)
    for radius in (1e-3, 1e-1, 1.0, 4.0):
        assert bool((objective(found + radius * directions) >= objective(found) - 1e-12).all())
    assert objective(found) <= objective(torch.zeros_like(x)) + 1e-12


@pytest.mark.parametrize("name", PAIRS)
@given(x=vectors, y=vectors, strength=strengths)
@settings(max_examples=100, deadline=None)
def test_prox_is_non_expansive(name, x, y, strength):
    _, prox = PAIRS[name]
    assert (prox(x, strength) - prox(y, strength)).norm() <= (x - y).norm() + 1e-12


def test_prox_equals_a_numeric_minimiser():
    x, strength = torch.tensor([1.0, -2.0, 0.5, 0.1], dtype=torch.float64), 0.7
    for prox in (lasso, group):
        # The penalties are not smooth at zero: sqrt(z^2 + tiny) in their place, followed to the minimum.
        z = x.clone().requires_grad_()
        smooth = {
            "lasso": lambda z: (z.square() + 1e-14).sqrt().sum(),
            "group": lambda z: (z.square().sum() + 1e-14).sqrt(),
        }
        chosen = smooth["lasso" if prox is lasso else "group"]
        optimizer = torch.optim.LBFGS([z], lr=0.5, max_iter=500, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

        def closure(z=z, chosen=chosen, optimizer=optimizer):
            optimizer.zero_grad()
            loss = 0.5 * (z - x).square().sum() + strength * chosen(z)
            loss.backward()
            return loss

        optimizer.step(closure)
        torch.testing.assert_close(prox(x, strength), z.detach(), atol=1e-4, rtol=0)


def test_edges():
    norms = torch.tensor([0.0, 1.0, 2.0])
    assert group_shrinkage(norms, torch.tensor([0.0, 0.0, 0.0])).tolist() == [0.0, 1.0, 1.0]
    assert group_shrinkage(norms, torch.tensor([5.0, 1.0, torch.inf])).tolist() == [0.0, 0.0, 0.0]


def test_complex_channels_have_norms_and_zeros():
    class Spectral(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(3, 4, dtype=torch.complex64), nn.Linear(4, 2, dtype=torch.complex64)

        def forward(self, x):
            return torch.view_as_real(self.last(self.first(x.to(torch.complex64))))

    model, x = Spectral(), torch.randn(5, 3)
    groups = prunus.trace(model, x)
    norms = GroupSlices.of(model, groups).norms()
    first = groups.layers == groups.layer_names.index("first")
    rows = torch.cat([model.first.weight, model.first.bias[:, None]], 1).abs()
    torch.testing.assert_close(norms[first], rows.norm(dim=1).detach())
    with torch.no_grad():
        model.first.weight[1] = model.first.bias[1] = 0
        model.first.weight[2] = model.first.bias[2] = 0
        model.first.weight[2, 0] = 1j
    small = prunus.apply(prunus.select(model, groups), model)
    assert small.first.out_features == 3
    torch.testing.assert_close(small(x), model(x))
