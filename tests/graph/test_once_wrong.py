"""Networks that were once cut wrongly: each shows that the law holds, and what may go."""

import pytest
import torch
from torch import nn
from torch.nn import functional

import prunus
from prunus.surgery.removal import removal

IMAGE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
KEPT = 8**-0.5


class Between(nn.Module):
    """1 x 1 convolutions before and after something, of the usual width."""

    width = 8

    def __init__(self):
        super().__init__()
        self.scale, self.dropout = KEPT, nn.Dropout(0.1)
        self.first, self.last = nn.Conv2d(3, self.width, 1), nn.Conv2d(self.width, 4, 1)
        self.other = nn.Conv2d(self.width, 4, 1)

    def forward(self, x):
        return self.last(self.between(self.first(x)))


class NumberLinesBefore(Between):
    def between(self, x):
        width = x.shape[1]
        return x * 8 / width


class NumberThatIsKept(Between):
    def between(self, x):
        return x * x.shape[1] ** -0.5


class NumberThatIsALiteral(Between):
    width = 4

    def between(self, x):
        width = x.shape[1]
        return x * width**-0.5 + x * 0.5


class NumberInsideAFunction(Between):
    def between(self, x):
        width = x.shape[1]

        def scaled(y):
            return y * 8 / width

        return scaled(x)


class Histogram(Between):
    def between(self, x):
        return ((x.sigmoid() * 4).floor() == 2).float()


class Equal(Between):
    def between(self, x):
        return ((x - 0.1).relu() == 0).float()


class Not(Between):
    def between(self, x):
        return torch.logical_not((x - 0.1).relu()).float()


class Infinite(Between):
    def between(self, x):
        return torch.isinf(x.log()).float()


class Beyond(Between):
    def between(self, x):
        return ((x + 1) * 5e4 > 2e4).float()


class Masked(Between):
    def between(self, x):
        return x.masked_fill(x.sigmoid().round() == 0, 1.0)


class Embedded(Between):
    def __init__(self):
        super().__init__()
        self.rows, self.read = nn.Embedding(2, 6), nn.Linear(6, 4)

    def forward(self, x):
        x = self.first(x)
        return self.read(self.rows((x > 0).long()).sum(1)).permute(0, 3, 1, 2) + self.other(x)


class Places(Between):
    def __init__(self):
        super().__init__()
        self.offsets, self.more = nn.Conv2d(3, 2, 1), nn.Conv2d(2, 4, 1)

    def forward(self, x):
        offsets = self.offsets(x).tanh()
        sampled = functional.grid_sample(self.first(x), offsets.permute(0, 2, 3, 1), align_corners=False)
        return self.last(sampled) + self.more(offsets)


class Cropped(Between):
    def forward(self, x):
        x = self.first(x)
        return self.last(x) + functional.pad(x, (0, 0, 0, 0, -2, 0)).sum(1, keepdim=True)


class Shifted(Between):
    def forward(self, x):
        x = self.first(x)
        return self.last(x) + self.other(functional.pad(x, (0, 0, 0, 0, 1, -1)))


class WrittenBehindDropout(Between):
    def between(self, x):
        y = self.dropout(x)
        y += 1
        return x


class WrittenBeforeDropout(Between):
    def between(self, x):
        y = self.dropout(x)
        x.sigmoid_()
        return y


class WrittenBehindEinsum(Between):
    def between(self, x):
        y = torch.einsum("nchw->nhwc", x)
        y += 1
        return x


class Squeezed(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, width, 1), nn.Linear(width, 4)

    def forward(self, x):
        return self.last(self.first(x).mean((2, 3), keepdim=True).squeeze())


class Repeated(Between):
    def between(self, x):
        return torch.repeat_interleave(x, torch.tensor([1, 2, 1, 1, 1, 1, 1, 2]), dim=2, output_size=10)


NOTHING = (
    Histogram, Equal, Not, Infinite, Beyond, Masked, Cropped, Shifted, WrittenBehindDropout, WrittenBeforeDropout,
    WrittenBehindEinsum, NumberLinesBefore, NumberThatIsKept, NumberThatIsALiteral, NumberInsideAFunction,
)  # fmt: skip
SOME = {Embedded: ("rows", 6), Places: ("first", 8), Repeated: ("first", 8)}


def law(model, inputs):
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    groups = prunus.trace(model, inputs)
    for fraction in (0.5, 0.9):
        record = prunus.check_removal(model, inputs, fraction=fraction, seed=1)
        assert record.max_rel_diff < 1e-5
    return groups


@pytest.mark.parametrize("kind", NOTHING)
def test_nothing_goes_exactly(kind):
    assert not law(kind().eval(), IMAGE).exact.any()


@pytest.mark.parametrize("kind", SOME)
def test_what_goes_is_what_may(kind):
    groups = law(kind().eval(), IMAGE)
    name, count = SOME[kind]
    assert int(groups.exact.sum()) == count
    assert {groups.layer_names[number].partition(",")[0] for number in groups.layers[groups.exact].tolist()} == {name}


@pytest.mark.parametrize("width", [2, 3, 6])
def test_two_channels_stay_where_a_dimension_might_be_squeezed_away(width):
    model = Squeezed(width).eval()
    groups = law(model, IMAGE)
    assert int(groups.exact.sum()) == width - 2
    assert any("names no dimension" in reason.text for reason in groups.told)


class OtherInTraining(Between):
    """The same operators with other numbers."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind

    def between(self, x):
        if self.kind == "bound":
            return x.clamp(min=0.1 if self.training else 0.0)
        if self.kind == "sum":
            return torch.add(x, 1.0 if self.training else 0.0)
        if self.kind == "dimension":
            return x * x.softmax(1 if self.training else 2)
        return functional.pad(x, (1, 1, 1, 1), value=1.0 if self.training else 0.0)


@pytest.mark.parametrize("kind", ["bound", "sum", "dimension", "padding"])
def test_other_numbers_in_training_are_read_too(kind):
    model = OtherInTraining(kind).eval()
    groups = prunus.trace(model, IMAGE)
    assert not groups.exact.any()


class Quartered(nn.Module):
    """A quarter of the channels, rounded down, is put behind the rest: with few left it is none."""

    def __init__(self, first, second):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, first, 1), nn.Conv2d(3, second, 1)
        self.last = nn.Conv2d(first + second, 2, 1)

    def forward(self, x):
        x = torch.cat([self.first(x), self.second(x)], 1)
        quarter = x.shape[1] // 4
        return self.last(torch.cat(x.split([quarter, x.shape[1] - quarter], 1)[::-1], 1))


@pytest.mark.parametrize("widths", [(3, 3), (2, 3), (4, 1), (5, 4), (8, 8)], ids=str)
def test_a_part_that_is_computed_is_seen_to_be_so_however_it_is_made(widths):
    assert not bool(law(Quartered(*widths).eval(), IMAGE).exact[: sum(widths)].all())


class Rounded(nn.Module):
    """The size of a head is computed from the width of what comes in, beside an attribute of the same value: a head of
    a channel less is what comes out where one, two or three channels less come in."""

    def __init__(self):
        super().__init__()
        self.heads, self.head_dim, self.scale = 3, 8, KEPT
        self.first, self.norm, self.qkv = nn.Linear(12, 24), nn.LayerNorm(24), nn.Linear(24, 72)
        self.proj, self.last = nn.Linear(24, 24), nn.Linear(24, 2)

    def forward(self, x):
        x = self.first(x)
        y = self.norm(x)
        n, length, c = y.shape
        qkv = self.qkv(y).reshape(n, length, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        y = (qkv[0] @ qkv[1].mT * self.scale).softmax(-1) @ qkv[2]
        return self.last(x + self.proj(y.transpose(1, 2).reshape(n, length, -1)))


def test_a_size_that_rounds_another_width_is_told_from_an_attribute():
    model = Rounded().eval()
    groups = law(model, torch.randn(2, 5, 12))
    assert int(groups.exact.sum()) == 0
    for number in range(len(groups)):
        chosen = torch.zeros(len(groups), dtype=torch.bool)
        chosen[number] = groups.removable[number]
        if bool(chosen.any()):
            assert prunus.apply(removal(groups, chosen), model)(torch.randn(2, 5, 12)).shape == (2, 5, 2)


class OtherWhenNarrow(Between):
    """The code chooses by the width."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind

    def between(self, x):
        if self.kind == "branch":
            return x.relu() if x.shape[1] > 4 else x.sigmoid()
        return functional.group_norm(x, 4 if x.shape[1] % 4 == 0 else 1)


@pytest.mark.parametrize("kind", ["branch", "number of groups"])
def test_what_code_does_when_it_is_narrow_is_seen(kind):
    assert not law(OtherWhenNarrow(kind).eval(), IMAGE).exact.any()
