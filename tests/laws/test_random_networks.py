"""The law on networks that nobody thought of: idioms composed at random."""

import nets
import pytest
from blocks import stack
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import nn

import prunus


@st.composite
def networks(draw):
    body, size = stack(draw, 6, draw(st.integers(1, 3)))
    return nn.Sequential(nets.conv(3, 6), body, *nets.head(size))


def measured(network, fraction, seed, whole_heads):
    """Return the law's record, and the network's state before and after."""
    model = nets.randomised(network, seed).double()
    before = nets.state(model)
    inputs = nets.CASES["plain"].inputs()
    record = prunus.check_removal(model, inputs, fraction=fraction, seed=seed, whole_heads=whole_heads)
    return record, before, nets.state(model)


any_network = given(
    network=networks(),
    fraction=st.sampled_from([0.3, 0.6, 1.0]),
    seed=st.integers(0, 999),
    whole_heads=st.booleans(),
)
quick = settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate],
)
thorough = settings(quick, max_examples=2000, derandomize=False, phases=[Phase.generate, Phase.shrink])


@any_network
@quick
def test_some_random_networks(network, fraction, seed, whole_heads):
    record, before, after = measured(network, fraction, seed, whole_heads)
    assert record.max_rel_diff <= 1e-10
    nets.assert_same_state(before, after)


@pytest.mark.slow
@pytest.mark.timeout(3 * 3600)
@any_network
@thorough
def test_many_random_networks(network, fraction, seed, whole_heads):
    record, before, after = measured(network, fraction, seed, whole_heads)
    assert record.max_rel_diff <= 1e-10
    nets.assert_same_state(before, after)
