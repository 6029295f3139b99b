"""Operators that perception networks of all kinds call between their layers."""

import pytest
import torch
from idioms import Call, check, images, reasons, tokens
from torch import nn
from torch.nn import functional as F


def conv(inner, outer):
    return nn.Conv2d(inner, outer, 3, padding=1)


class Unpooled(nn.Module):
    """Pooled with places, unpooled at them (SegNet, ENet), in two or three dimensions."""

    def __init__(self, rank, middle, *, other=False):
        super().__init__()
        layer, self.pool = getattr(nn, f"Conv{rank}d"), getattr(nn, f"MaxPool{rank}d")(2, return_indices=True)
        self.unpool, self.other = getattr(nn, f"MaxUnpool{rank}d")(2), other
        self.down, self.up = layer(3, 8, 3, padding=1), layer(8, 2, 3, padding=1)
        self.middle = layer(8, 8, 3, padding=1) if middle else nn.Identity()

    def forward(self, x):
        pooled, places = self.pool(self.down(x).relu())
        if self.other:  # places of something that has no channels of its own
            places = self.pool(x.sum(1, keepdim=True).expand(-1, 8, *x.shape[2:]))[1]
        return self.up(self.unpool(self.middle(pooled), places))


@pytest.mark.parametrize(("rank", "middle"), [(1, True), (2, False), (2, True), (3, True)])
def test_unpooling_takes_the_places_of_each_channel(rank, middle):
    check(Unpooled(rank, middle), torch.randn(2, 3, *[8] * rank), exact=8)


def test_unpooling_at_places_of_a_fixed_number_of_channels_is_refused():
    groups = check(Unpooled(2, True, other=True), images(), exact=8)
    assert "meets data of a fixed size" in reasons(groups)


def folded(x):
    return F.fold(F.unfold(x, 3, padding=1), x.shape[2:], 3, padding=1)


@pytest.mark.parametrize(
    ("function", "outer", "inner", "exact"),
    [
        (folded, 8, 8, 8),
        (lambda x: F.fold(x.flatten(2), (9, 9), 2), 8, 2, 2),
        (lambda x: F.fold(x.flatten(2).sigmoid(), (9, 9), 2), 8, 2, 0),
        (lambda x: F.fold(x.flatten(2).mT, (2, 6), 2, stride=2), 3, 16, 0),
    ],
    ids=["unfold", "alone", "not zero", "along"],
)
def test_windows_are_folded_into_channels(function, outer, inner, exact):
    check(Call(function, conv(3, outer), conv(inner, 2)), images(), exact=exact)


class Pair(nn.Module):
    """Two layers of channels, a function of both, and a layer that reads what comes out."""

    def __init__(self, function, last, size=8):
        super().__init__()
        self.first, self.second, self.last = nn.Linear(12, 8), nn.Linear(12, size), last
        self.function = function

    def forward(self, x):
        return self.last(self.function(self.first(x), self.second(x)))


def expanded(a, b):
    """|a|^2 - 2 a b + |b|^2, as a product: what stands on one side alone counts."""
    return torch.cdist(a, b, compute_mode="use_mm_for_euclid_dist")


@pytest.mark.parametrize(
    ("function", "exact"),
    [
        (torch.cdist, 8),
        (lambda a, b: torch.cdist(a, b, p=1), 8),
        (lambda a, b: torch.cdist(a, b, p=float("inf")), 8),
        (expanded, 8),
        (lambda a, b: torch.cdist(a, b.sigmoid()), 0),
        (lambda a, b: torch.cdist(a.sigmoid(), b), 0),
        (lambda a, b: torch.cdist(a, a.new_ones(5, 8)), 0),
        (lambda a, b: torch.cdist(a.mT, b.mT)[:, :5, :5], 0),
    ],
    ids=["euclidean", "p=1", "maximum", "product", "second", "first", "fixed", "between channels"],
)
def test_distances_do_not_see_what_is_zero_on_both_sides(function, exact):
    check(Pair(function, nn.Linear(5, 2)), tokens(), exact=exact)


@pytest.mark.parametrize(
    ("function", "inner", "exact"),
    [
        (lambda a, b: F.cosine_similarity(a, b, -1), 5, 8),
        (lambda a, b: F.cosine_similarity(a[:, :, None], b[:, None], -1).sum(1), 5, 8),
        (lambda a, b: F.cosine_similarity(a, b[0], 2), 5, 8),
        (lambda a, b: F.cosine_similarity(a, b.exp(), -1), 5, 0),
        (lambda a, b: F.cosine_similarity(a.exp(), b, -1), 5, 0),
        (lambda a, b: F.cosine_similarity(a, b, 1), 8, 0),
        (lambda a, b: F.cosine_similarity(a, a.new_ones(8), -1), 5, 0),
    ],
    ids=["last", "all pairs", "broadcast", "second", "first", "over tokens", "fixed"],
)
def test_cosines_do_not_see_what_is_zero_on_both_sides(function, inner, exact):
    check(Pair(function, nn.Linear(inner, 2)), tokens(), exact=exact)


def test_a_table_of_prototypes_is_zero_with_what_is_held_against_it():
    class Prototypes(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.table, self.last = nn.Linear(12, 8), nn.Parameter(torch.zeros(6, 8)), nn.Linear(6, 2)

        def forward(self, x):
            return self.last(torch.exp(-torch.cdist(self.first(x), self.table)))

    groups = check(Prototypes(), tokens(), exact=8)
    assert "producer" in {slot.role for slot in groups.slots if slot.path == "table" and slot.dim == 1}


@pytest.mark.parametrize(
    ("function", "inner", "exact"),
    [
        (lambda a, b: torch.tensordot(a[0], b[0], dims=([1], [1])), 5, 8),
        (lambda a, b: torch.tensordot(a[0], b[0], dims=([-1], [-1])), 5, 8),
        (lambda a, b: torch.tensordot(a[0], b[0].mT.exp(), 1), 5, 8),
        (lambda a, b: torch.tensordot(a[0].exp(), b[0].exp(), ([1], [1])), 5, 0),
        (lambda a, b: torch.tensordot(a[0].mT, b[0], 1).mT, 8, 8),
    ],
    ids=["last", "negative", "by number", "not zero", "outer"],
)
def test_products_over_named_dimensions(function, inner, exact):
    check(Pair(function, nn.Linear(inner, 2)), tokens(), exact=exact)


class Filter(nn.Module):
    """A filter for each frequency and channel (GFNet)."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(8, 5, 8, 2))

    def forward(self, x):
        x = torch.fft.rfft2(x.permute(0, 2, 3, 1), dim=(1, 2), norm="ortho") * torch.view_as_complex(self.weight)
        return torch.fft.irfft2(x, s=(8, 8), dim=(1, 2), norm="ortho").permute(0, 3, 1, 2)


class Fourier(nn.Module):
    """A convolution over the parts of a spectrum (LaMa's fast Fourier convolution)."""

    def __init__(self):
        super().__init__()
        self.inside = nn.Conv2d(16, 16, 1)

    def forward(self, x):
        n, c, h, w = x.shape
        x = torch.fft.rfftn(x, dim=(-2, -1))
        x = torch.stack((x.real, x.imag), -1).permute(0, 1, 4, 2, 3).reshape(n, 2 * c, h, -1)
        x = self.inside(x).relu().reshape(n, -1, 2, h, w // 2 + 1).permute(0, 1, 3, 4, 2)
        return torch.fft.irfftn(torch.complex(x[..., 0], x[..., 1]), s=(h, w), dim=(-2, -1))


@pytest.mark.parametrize(
    ("function", "exact"),
    [
        (lambda x: torch.fft.fft2(x).abs(), 8),
        (lambda x: torch.fft.fftshift(torch.fft.fft(x), dim=(2, 3)).real, 8),
        (lambda x: torch.fft.ifft2(torch.fft.fft2(x) * 2).imag, 8),
        (lambda x: torch.view_as_real(torch.fft.rfft(x)).sum(-1), 8),
        (lambda x: torch.fft.fftn(x, s=(8, 8)).real, 8),
        (lambda x: torch.fft.fft(x, dim=1).real, 0),
        (lambda x: torch.fft.fftn(x).real, 0),
        (lambda x: torch.fft.fftshift(x), 0),
        (
            lambda x: torch.view_as_complex(x.permute(0, 2, 3, 1).reshape(2, 8, 8, 4, 2).contiguous()).real.permute(
                0, 3, 1, 2
            ),
            0,
        ),
    ],
    ids=["fft2", "shifted", "back", "parts", "sizes", "channels", "all", "all shifted", "pairs of channels"],
)
def test_transforms_of_positions_keep_channels_apart(function, exact):
    inner = 4 if exact == 0 and function(torch.randn(2, 8, 8, 8)).shape[1] == 4 else 8
    check(Call(function, conv(3, 8), conv(inner, 2)), images(), exact=exact)


@pytest.mark.parametrize(("layer", "exact"), [(Filter, 8), (Fourier, 16)])
def test_layers_between_transforms(layer, exact):
    check(nn.Sequential(conv(3, 8), layer(), conv(8, 2)), images(), exact=exact)


class Guidance(nn.Module):
    """A similarity of two branches weighs a third (PIDNet)."""

    def __init__(self, function):
        super().__init__()
        self.stem, self.key, self.query, self.last = conv(3, 8), conv(8, 6), conv(8, 6), conv(8, 2)
        self.function = function

    def forward(self, x):
        x = self.stem(x)
        return self.last(x * torch.sigmoid(self.function(self.key(x), self.query(x))))


@pytest.mark.parametrize(
    ("function", "exact"),
    [
        (lambda k, q: (k * q).sum(1, keepdim=True), 14),
        (lambda k, q: k.mul(q).sum(dim=1)[:, None], 14),
        (lambda k, q: torch.einsum("bchw,bchw->bhw", k, q)[:, None], 14),
        (lambda k, q: (k * q.sigmoid()).sum(1, keepdim=True), 14),
        (lambda k, q: (k.exp() * q.sigmoid()).sum(1, keepdim=True), 8),
        (lambda k, q: (k * q).mean(1, keepdim=True), 8),
    ],
    ids=["product", "method", "einsum", "one zero", "none zero", "mean"],
)
def test_a_sum_of_products_contracts(function, exact):
    check(Guidance(function), images(), exact=exact)
