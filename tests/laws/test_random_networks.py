"""The law on networks that nobody thought of: idioms composed at random."""

import nets
import pytest
import torch
from blocks import stack
from blocks_more import network
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import prunus
from prunus.modules.tensors import named_tensors
from prunus.surgery.removal import removal, spare_layers
from prunus.verify import difference


@st.composite
def networks(draw):
    return network(draw, *stack(draw, 6, draw(st.integers(1, 3))))


def measured(drawn, fraction, seed, whole_heads):
    """Return the law's record, and the network's state before and after."""
    wide, shapes = drawn
    model = nets.randomised(wide, seed).double()
    before = nets.state(model)
    generator = torch.Generator().manual_seed(seed)
    inputs = tuple(torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    record = prunus.check_removal(model, inputs, fraction=fraction, seed=seed, whole_heads=whole_heads)
    return record, before, nets.state(model)


def switched_off(drawn, fraction, seed):
    """Set random channels of some of the tensors that hold them to zero; return how far outputs are apart without what
    is off then: relative to them, or absolutely where nothing is left of them but rounding."""
    wide, shapes = drawn
    model = nets.randomised(wide, seed).double().eval()
    generator = torch.Generator().manual_seed(seed)
    inputs = tuple(torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    groups = prunus.trace(model, inputs)
    gone = torch.rand(len(groups) + 1, generator=generator) < fraction
    gone[-1] = False
    tensors = named_tensors(model)
    for slot in groups.slots:
        if torch.rand((), generator=generator) < 0.6 and not slot.path.endswith(
            "original1"
        ):  # a direction has a length
            tensors[slot.path].detach().index_fill_(slot.dim, gone[slot.groups].nonzero().flatten(), 0)
    small = prunus.apply(removal(groups, spare_layers(groups, groups.off(model))), model)
    return min(difference(model, small, inputs))


any_network = given(
    drawn=networks(),
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
def test_some_random_networks(drawn, fraction, seed, whole_heads):
    record, before, after = measured(drawn, fraction, seed, whole_heads)
    assert record.max_rel_diff <= 1e-12
    nets.assert_same_state(before, after)


@any_network
@quick
def test_some_random_networks_without_what_is_off(drawn, fraction, seed, whole_heads):
    assert switched_off(drawn, fraction, seed) <= 1e-12


@pytest.mark.slow
@pytest.mark.timeout(3 * 3600)
@any_network
@thorough
def test_many_random_networks_without_what_is_off(drawn, fraction, seed, whole_heads):
    assert switched_off(drawn, fraction, seed) <= 1e-12


@pytest.mark.slow
@pytest.mark.timeout(3 * 3600)
@any_network
@thorough
def test_many_random_networks(drawn, fraction, seed, whole_heads):
    record, before, after = measured(drawn, fraction, seed, whole_heads)
    assert record.max_rel_diff <= 1e-12
    nets.assert_same_state(before, after)
