"""What is written into a part of a tensor: the channels of the part are those of the whole."""

import pytest
import torch
from idioms import check, images, reasons
from torch import nn
from torch.nn import functional as F


class Two(nn.Module):
    """A function of two layers' channels and the image, between layers."""

    def __init__(self, function, first=8, second=8, last=8):
        super().__init__()
        self.function = function
        self.first, self.second = nn.Conv2d(3, first, 3, padding=1), nn.Conv2d(3, second, 3, padding=1)
        self.last = nn.Conv2d(last, 2, 1)

    def forward(self, x):
        return self.last(self.function(x, self.first(x), self.second(x)))


def beside(x, a, b):
    y = torch.zeros(x.shape[0], a.shape[1] + b.shape[1], *x.shape[2:], dtype=x.dtype)
    y[:, : a.shape[1]] = a
    y[:, a.shape[1] :, :, 1:] = b[..., 1:]
    return y


def beside_hard_coded(x, a, b):
    y = torch.zeros(x.shape[0], 16, *x.shape[2:], dtype=x.dtype)
    y[:, :8], y[:, 8:] = a, b
    return y


def beside_ones(x, a, b):
    y = torch.ones(x.shape[0], a.shape[1] + b.shape[1], *x.shape[2:], dtype=x.dtype)
    y[:, : a.shape[1]] = a
    y[:, a.shape[1] :, 1:] = b[:, :, 1:]
    return y


def by_rows(x, a, b):
    y = torch.zeros_like(a)
    y[:, :, ::2], y[:, :, 1::2] = a[:, :, ::2], b[:, :, 1::2]
    return y


def into_empty(x, a, b):
    y = torch.empty(x.shape[0], a.shape[1], *x.shape[2:], dtype=x.dtype)
    y[..., :4], y[..., 4:] = a[..., :4], b[..., 4:]
    return y


def into_views(x, a, b):
    y = torch.zeros(x.shape[0], a.shape[1], *x.shape[2:], dtype=x.dtype)
    upper, lower = y[:, :, :4], y[:, :, 4:]
    upper.copy_(a[:, :, :4]), lower.copy_(b[:, :, 4:])
    return torch.cat([upper, lower], 2)


def transposed(x, a, b):
    y = torch.zeros(x.shape[0], *x.shape[2:], a.shape[1], dtype=x.dtype)
    y.movedim(3, 1).copy_(a).add_(b)
    return y.movedim(3, 1)


def summed(x, a, b):
    y = x.new_zeros(x.shape[0], a.shape[1], *x.shape[2:])
    y[:, :, 2:6, 2:6].add_(a[:, :, 2:6, 2:6]).mul_(2)
    y[..., 0].sub_(b[..., 0])
    return y


def stacked(x, a, b):
    y = torch.zeros(x.shape[0], 3 * a.shape[1], *x.shape[2:], dtype=x.dtype).view(x.shape[0], 3, -1, *x.shape[2:])
    for number in range(3):
        y[:, number] = a if number < 2 else b
    return y.amax(1)


def row_of_ones(x, a, b):
    y = (a + b).permute(0, 2, 3, 1)
    y[:, 0] += 1
    return y.permute(0, 3, 1, 2)


def later_view(x, a, b):
    y = torch.zeros(x.shape[0], a.shape[1], *x.shape[2:], dtype=x.dtype)
    turned = y.permute(0, 2, 3, 1)
    y[:] = a + b
    y[:, :, 1] = 1.0
    return turned.permute(0, 3, 1, 2)


def image_over_channels(x, a, b):
    y = torch.zeros(x.shape[0], 3, *x.shape[2:], dtype=x.dtype)
    y[:, :] = x
    return torch.cat([a, y], 1) + b


def part_of_channels(x, a, b):
    a[:, :4] = b[:, :4]
    return a


def channel_by_number(x, a, b):
    y = x.new_zeros(x.shape[0], 8, *x.shape[2:])
    y[:, 0] = a[:, 0]
    return y + b


def every_second(x, a, b):
    y = torch.zeros(x.shape[0], 2 * a.shape[1], *x.shape[2:], dtype=x.dtype)
    y[:, ::2], y[:, 1::2] = a, b
    return y


def diagonals(x, a, b):
    a.diagonal(dim1=2, dim2=3).copy_(b.diagonal(dim1=2, dim2=3))
    return a


def enlarged(x, a, b):
    y = torch.zeros(x.shape[0], a.shape[1], 16, 16, dtype=x.dtype)
    y[:, :, ::2, ::2], y[:, :, 1::2, 1::2] = a, b
    return y


def averages(x, a, b):
    means = torch.zeros(2, a.shape[1], dtype=x.dtype)
    means[0], means[1] = a[0].mean((1, 2)), b[1].mean((1, 2))
    return b * means[:, :, None, None]


def unsqueezed(x, a, b):
    y = a[:, :4]
    a.unsqueeze_(0)
    y += 1
    return a.squeeze(0)


def half_of_channels(x, a, b):
    a.chunk(2, 1)[0].add_(1)
    return a + b


WRITTEN = {  # function, widths before and behind, exact groups
    "beside": (beside, (8, 8, 16), 8),
    "hard-coded": (beside_hard_coded, (8, 8, 16), 0),
    "ones": (beside_ones, (8, 8, 16), 0),
    "rows": (by_rows, (8, 8, 8), 8),
    "empty": (into_empty, (8, 8, 8), 8),
    "views": (into_views, (8, 8, 8), 8),
    "transposed": (transposed, (8, 8, 8), 8),
    "summed": (summed, (8, 8, 8), 8),
    "stacked": (stacked, (8, 8, 8), 8),
    "ones in a view": (row_of_ones, (8, 8, 8), 0),
    "later view": (later_view, (8, 8, 8), 0),
    "image": (image_over_channels, (5, 8, 8), 5),
    "part": (part_of_channels, (8, 8, 8), 0),
    "channel": (channel_by_number, (8, 8, 8), 0),
    "diagonals": (diagonals, (8, 8, 8), 8),
    "enlarged": (enlarged, (8, 8, 8), 8),
    "averages": (averages, (8, 8, 8), 8),
    "unsqueezed": (unsqueezed, (8, 8, 8), 0),
    "half": (half_of_channels, (8, 8, 8), 0),
    "every second": (every_second, (8, 8, 16), 0),
}


@pytest.mark.parametrize(("function", "widths", "exact"), WRITTEN.values(), ids=WRITTEN)
def test_what_is_written_keeps_its_channels(function, widths, exact):
    check(Two(function, *widths), images(), exact=exact)


class Stereo(nn.Module):
    """Features of two images, and a volume of how they match at each disparity (PSMNet, GwcNet)."""

    def __init__(self, volume, size, depth=8):
        super().__init__()
        self.volume = volume
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, depth, 1)
        )
        self.match = nn.Sequential(nn.Conv3d(size, 6, 3, padding=1), nn.ReLU(), nn.Conv3d(6, 1, 1))
        self.disparities = torch.arange(3.0).double().view(1, 3, 1, 1)

    def forward(self, left, right):
        scores = self.match(self.volume(self.features(left), self.features(right)).contiguous())
        return (scores.squeeze(1).softmax(1) * self.disparities.data).sum(1)


def concatenated(a, b, make):
    n, c, h, w = a.shape
    volume = make(n, 2 * c, 3, h, w)
    for d in range(3):
        volume[:, :c, d, :, d:] = a[..., d:]
        volume[:, c:, d, :, d:] = b[..., : w - d]
    return volume


def by_groups(a, b, function):
    n, c, h, w = a.shape
    volume = a.new_zeros(n, 2, 3, h, w)
    for d in range(3):
        pair = (part.reshape(n, 2, c // 2, h, w - d) for part in (a[..., d:], b[..., : w - d]))
        volume[:, :, d, :, d:] = function(*pair)
    return volume


def legacy(*shape):
    return torch.DoubleTensor(*shape).zero_()


def double(*shape):
    return torch.zeros(*shape, dtype=torch.float64)


def filled(*shape):
    return torch.empty(*shape, dtype=torch.float64).fill_(0.0)


def flat(*shape):
    volume = torch.empty(*shape, dtype=torch.float64)
    volume.view(-1).zero_()
    return volume


def assigned(*shape):
    volume = torch.empty(*shape, dtype=torch.float64)
    volume[:] = 0
    return volume


def detached(*shape):
    volume = double(*shape)
    volume.data.zero_()
    volume[:, 0].mul_(2)
    return volume


def like(*shape):
    return torch.zeros_like(torch.empty(*shape, dtype=torch.float64))


def scaled(*shape):
    return torch.ones(*shape, dtype=torch.float64) * 0


def in_halves(*shape):
    volume = torch.ones(*shape, dtype=torch.float64)
    volume[:, : shape[1] // 2], volume[:, shape[1] // 2 :] = 1, 1
    return volume.sub_(1)


def products(a, b):
    return (a * b).mean(2)


def cosine(a, b):
    return F.cosine_similarity(a, b, 2)


VOLUMES = {
    "zeros": (lambda a, b: concatenated(a, b, double), 16),
    "new_zeros": (lambda a, b: concatenated(a, b, a.new_zeros), 16),
    "legacy": (lambda a, b: concatenated(a, b, legacy), 16),
    "filled": (lambda a, b: concatenated(a, b, filled), 16),
    "flat": (lambda a, b: concatenated(a, b, flat), 16),
    "assigned": (lambda a, b: concatenated(a, b, assigned), 16),
    "detached": (lambda a, b: concatenated(a, b, detached), 16),
    "like": (lambda a, b: concatenated(a, b, like), 16),
    "scaled": (lambda a, b: concatenated(a, b, scaled), 16),
    "in halves": (lambda a, b: concatenated(a, b, in_halves), 16),
    "products": (lambda a, b: by_groups(a, b, products), 2),
    "cosine": (lambda a, b: by_groups(a, b, cosine), 2),
}


@pytest.mark.parametrize(("volume", "size"), VOLUMES.values(), ids=VOLUMES)
def test_a_cost_volume_loses_the_channels_of_its_features(volume, size):
    groups = check(Stereo(volume, size), images(), images())
    for path in ("features.0", "match.0", *(["features.3"] if size == 16 else [])):
        assert bool(groups.exact[groups.layers == groups.layer_names.index(path)].all()), reasons(groups)
    assert groups.coverage().removable_params > 0.85


@pytest.mark.parametrize("volume", [volume for volume, size in VOLUMES.values() if size == 16])
def test_a_volume_may_be_too_large_to_compute_at_its_own_width_alone(volume, monkeypatch):
    monkeypatch.setattr("prunus.program.recorder.LARGE", 2 * 16 * 3 * 8 * 8 - 1)
    check(Stereo(volume, 16), images(), images(), exact=8 + 8 + 6)


def test_a_part_filled_with_another_value_still_holds_channels():
    def volume(a, b):
        made = concatenated(a, b, double)
        made[:, : a.shape[1], 0] = 1
        return made

    groups = check(Stereo(volume, 16), images(), images())
    assert not bool(groups.exact[groups.layers == groups.layer_names.index("features.3")].all()), reasons(groups)


OVERLAPPING = {
    "unfold": lambda constant: constant.unfold(0, 3, 2).zero_(),  # the last element stays
    "as_strided": lambda constant: constant.view(2, 4).as_strided((2, 4), (1, 1)).zero_(),  # the last three stay
}


@pytest.mark.parametrize("write", OVERLAPPING.values(), ids=OVERLAPPING)
def test_a_write_through_an_overlapping_view_is_not_one_of_all(write):
    def function(x, a, b):
        constant = torch.empty(8, dtype=x.dtype).fill_(1.0)
        write(constant)
        return (a + b) * 0 + a + constant[:, None, None]

    check(Two(function, 8, 8, 8), images(), exact=0)
