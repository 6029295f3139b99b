"""The group prox in a diagonal metric: it beats everything near and far, and is the plain one where the metric is."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from prunus.penalties.metric_prox import metric_shrink_
from prunus.penalties.prox import group_shrinkage
from prunus.penalties.slices import GroupSlices, Slice


def one_group(values):
    """Three numbers of a weight and one of a bias make group 0; group 1 lies beside it."""
    weight = nn.Parameter(torch.stack([values[:3], torch.ones(3, dtype=values.dtype)]))
    bias = nn.Parameter(torch.stack([values[3], torch.ones((), dtype=values.dtype)]))
    groups = torch.tensor([0, 1])
    return GroupSlices((Slice(weight, 0, groups), Slice(bias, 0, groups)), (), 2), weight, bias


def shrunk(values, threshold, metric):
    slices, weight, bias = one_group(values)
    parts = {id(weight): torch.stack([metric[:3], metric[:3]]), id(bias): metric[3].repeat(2)}
    thresholds = torch.tensor([threshold, 0.0], dtype=values.dtype)
    dead = metric_shrink_(slices, thresholds, lambda parameter: parts[id(parameter)])
    assert weight[1].tolist() == [1, 1, 1] and bias[1].item() == 1 and not dead[1]  # the other group stays
    return torch.cat([weight[0], bias[:1]]).detach(), bool(dead[0])


@given(seed=st.integers(0, 2**16), threshold=st.floats(1e-3, 5), spread=st.floats(0, 3))
@settings(max_examples=60, deadline=None)
def test_nothing_beats_it(seed, threshold, spread):
    generator = torch.Generator().manual_seed(seed)
    y = torch.randn(4, generator=generator, dtype=torch.float64)
    metric = (spread * torch.randn(4, generator=generator, dtype=torch.float64)).exp()
    found, dead = shrunk(y, threshold, metric)

    def objective(z):
        return 0.5 * (metric * (z - y).square()).sum(-1) + threshold * z.norm(dim=-1)

    assert dead == bool((found == 0).all())
    directions = torch.randn(100, 4, generator=generator, dtype=torch.float64)
    for radius in (1e-3, 1e-2, 0.1, 1.0):
        assert bool((objective(found + radius * directions) >= objective(found) - 1e-9).all())


@pytest.mark.parametrize("threshold", [0.1, 1.0, 10.0])
def test_an_even_metric_gives_the_plain_prox(threshold):
    y = torch.tensor([1.0, -2.0, 0.5, 0.3], dtype=torch.float64)
    found, _ = shrunk(y, threshold, torch.full((4,), 2.0, dtype=torch.float64))
    factor = group_shrinkage(y.norm().reshape(1), torch.tensor([threshold / 2], dtype=torch.float64))
    torch.testing.assert_close(found, y * factor)
