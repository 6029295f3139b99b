"""The law on networks that nobody thought of: idioms composed at random."""

import nets
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import nn

import prunus

ACTIVATIONS = (nn.ReLU, nn.SiLU, nn.Identity, nn.GELU, nn.Tanh, nn.Sigmoid)


def narrow(draw, size):
    out = draw(st.sampled_from([4, 6, 8]))
    return nn.Sequential(nets.conv(size, out), draw(st.sampled_from(ACTIVATIONS))()), out


def normalised(draw, size):
    return nn.Sequential(nn.BatchNorm2d(size, affine=draw(st.booleans())), nn.ReLU()), size


def residual(draw, size):
    branch, out = stack(draw, size, 2)
    return nets.Join(nets.add, nn.Identity(), nn.Sequential(branch, nets.conv(out, size, 1))), size


def concat(draw, size):
    (first, one), (second, two) = stack(draw, size, 1), stack(draw, size, 1)
    return nets.Join(nets.concat, first, second), one + two


def depthwise(draw, size):
    return nn.Sequential(nets.conv(size, 2 * size, groups=size), nn.ReLU()), 2 * size


def grouped(draw, size):
    return (nets.conv(size, size, groups=2), size) if size % 2 == 0 else (nn.Identity(), size)


def excited(draw, size):
    return nets.SqueezeExcite(size, 3), size


def scaled(draw, size):
    return nets.Scaled(size), size


def shuffled(draw, size):
    kind = draw(st.sampled_from([lambda: nn.ChannelShuffle(2), lambda: nets.WrittenShuffle(size, 2)]))
    return (kind(), size) if size % 2 == 0 else (nn.Identity(), size)


def gated(draw, size):
    return (nn.GLU(1), size // 2) if size % 2 == 0 else (nn.Identity(), size)


def pixel_shuffled(draw, size):
    if size % 4:
        return nn.Identity(), size
    return nn.Sequential(nn.PixelShuffle(2), nn.AvgPool2d(2)), size // 4


def transposed(draw, size):
    groups = draw(st.sampled_from([1, size]))
    return nn.ConvTranspose2d(size, size, 3, padding=1, groups=groups), size


def group_normalised(draw, size):
    return nn.GroupNorm(draw(st.sampled_from([1, size])), size), size


BLOCKS = (
    *(narrow, normalised, residual, concat, depthwise, grouped, excited, scaled, shuffled, gated),
    *(pixel_shuffled, transposed, group_normalised),
)


def stack(draw, size, num):
    """Return `num` blocks behind each other and their output's channels."""
    parts = []
    for _ in range(num):
        part, size = draw(st.sampled_from(BLOCKS))(draw, size)
        parts.append(part)
    return nn.Sequential(*parts), size


@st.composite
def networks(draw):
    body, size = stack(draw, 6, draw(st.integers(1, 5)))
    return nn.Sequential(nets.conv(3, 6), body, *nets.head(size))


def holds(network, fraction, seed):
    model = nets.randomised(network, seed).double()
    before = nets.state(model)
    record = prunus.check_removal(model, nets.CASES["plain"].inputs(), fraction=fraction, seed=seed)
    nets.assert_same_state(before, nets.state(model))
    assert record.max_rel_diff <= 1e-10


fractions = st.sampled_from([0.3, 0.6, 1.0])
quick = settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate],
)
thorough = settings(quick, max_examples=2000, derandomize=False, phases=[Phase.generate, Phase.shrink])


@given(network=networks(), fraction=fractions, seed=st.integers(0, 999))
@quick
def test_some_random_networks(network, fraction, seed):
    holds(network, fraction, seed)


@pytest.mark.slow
@given(network=networks(), fraction=fractions, seed=st.integers(0, 999))
@thorough
def test_many_random_networks(network, fraction, seed):
    holds(network, fraction, seed)
