"""Buffers that go with the channels: masks of channels, and one kernel for all of them."""

import pytest
import torch
from idioms import check, images
from torch import nn
from torch.nn import functional as F


def conv(inner, outer):
    return nn.Conv2d(inner, outer, 3, padding=1)


class Masked(nn.Module):
    """A boolean buffer says which channels count."""

    def __init__(self, use):
        super().__init__()
        self.first, self.last, self.use = conv(3, 8), conv(8, 2), use
        self.register_buffer("mask", (torch.arange(8) % 3 > 0).view(8, 1, 1))

    def forward(self, x):
        return self.last(self.use(self.first(x).relu(), self.mask))


@pytest.mark.parametrize(
    ("use", "exact"),
    [
        (lambda x, mask: x * mask, 8),
        (lambda x, mask: x * mask.to(x), 8),
        (lambda x, mask: torch.where(mask, x, torch.zeros_like(x)), 8),
        (lambda x, mask: x.masked_fill(~mask, 0.0), 8),
        (lambda x, mask: x.masked_fill(~mask, 5.0), 0),  # a removed channel was 5 there
        (lambda x, mask: x * mask if bool(mask.any()) else x, 0),  # the code asks for its values
        (lambda x, mask: torch.where(mask, x, 0.0)[:, mask.flatten()].repeat(1, 2, 1, 1)[:, :8], 0),
    ],
)
def test_a_boolean_buffer_is_cut_with_the_channels_that_it_masks(use, exact):
    check(Masked(use), images(), exact=exact)


class Blurred(nn.Module):
    """One kernel, repeated over all channels (antialiasing, Sobel)."""

    def __init__(self, blur):
        super().__init__()
        self.first, self.last, self.blur = conv(3, 8), conv(8, 2), blur
        self.register_buffer("kernel", torch.outer(torch.tensor([1.0, 2, 1]), torch.tensor([1.0, 2, 1]))[None, None])

    def forward(self, x):
        return self.last(self.blur(self.first(x).relu(), self.kernel))


BLURS = {
    "expand": lambda x, k: F.conv2d(x, k.expand(x.shape[1], -1, -1, -1), padding=1, groups=x.shape[1]),
    "repeat": lambda x, k: F.conv2d(x, k.repeat(x.shape[1], 1, 1, 1), stride=2, padding=1, groups=x.shape[1]),
    "constant": lambda x, k: F.conv2d(x, x.new_ones(x.shape[1], 1, 3, 3) / 9, padding=1, groups=x.shape[1]),
    "transposed": lambda x, k: F.conv_transpose2d(x, k.expand(x.shape[1], -1, -1, -1), stride=2, groups=x.shape[1]),
}


@pytest.mark.parametrize("blur", BLURS.values(), ids=BLURS.keys())
def test_one_kernel_for_all_channels_lets_them_go(blur):
    check(Blurred(blur), images(), exact=8)
