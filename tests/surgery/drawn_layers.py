"""Layers drawn at random, and how far a reshaped network is from what it was."""

import torch
from hypothesis import strategies as st
from torch import nn

from prunus.verify import difference

TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5}


def _pair(draw, low, high):
    return tuple(draw(st.integers(low, high)) for _ in range(2))


@st.composite
def convolutions(draw, transposed=None, min_side=1):
    """A two-dimensional convolution, direct or transposed, with everything that it may have."""
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    inner, outer = groups * draw(st.integers(1, 3)), groups * draw(st.integers(1, 3))
    kernel, stride, dilation = _pair(draw, min_side, 4), _pair(draw, 1, 3), _pair(draw, 1, 2)
    bias = draw(st.booleans())
    if draw(st.booleans()) if transposed is None else transposed:
        reach = [min(2, d * (k - 1)) for k, d in zip(kernel, dilation, strict=True)]
        padding = tuple(draw(st.integers(0, size)) for size in reach)
        behind = tuple(draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True))
        return nn.ConvTranspose2d(
            inner, outer, kernel, stride, padding, behind, groups=groups, bias=bias, dilation=dilation
        )
    mode = draw(st.sampled_from(["zeros", "zeros", "reflect", "replicate", "circular"]))
    # torch warns of a copy where the sides are even
    same = set(stride) == {1} and all(k % 2 for k in kernel) and draw(st.booleans())
    padding = "same" if same else _pair(draw, 0, 3)
    return nn.Conv2d(inner, outer, kernel, stride, padding, dilation, groups, bias, padding_mode=mode)


def network(layer, dtype=torch.float64, seed=0):
    """The layer, between two others that show its borders, and an image for it."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Identity(), layer, nn.Tanh()).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    return model, torch.randn(2, layer.in_channels, 11, 12, dtype=dtype)


def assert_equal(first, second, image):
    assert difference(first, second, (image,))[1] <= TOLERANCES[image.dtype]
