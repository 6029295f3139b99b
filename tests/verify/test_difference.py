import nets
import pytest
import torch
from torch import nn

from prunus.records import EXACT
from prunus.verify import Change, Extremes, change_of_outputs, difference, largest_difference


class Gives(nn.Module):
    def __init__(self, *values):
        super().__init__()
        self.values = values

    def forward(self):
        return {"all": [torch.tensor(value) for value in self.values]}


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([1.0, -4.0], [1.5, -4.0], (0.5, 0.125)),
        ([1.0, float("nan")], [1.0, float("nan")], (0.0, 0.0)),
        ([1.0, float("inf")], [1.0, float("inf")], (0.0, 0.0)),
        ([1.0, 2.0], [1.0, float("nan")], (float("inf"), float("inf"))),
        ([0.0], [0.0], (0.0, 0.0)),
        ([3], [4], (1.0, 1 / 3)),
    ],
)
def test_difference_by_hand(first, second, expected):
    assert difference(Gives(first), Gives(second), ()) == pytest.approx(expected)


def test_extremes_are_over_all_that_was_added():
    extremes = Extremes()
    assert (extremes.difference, extremes.relative) == (0.0, 0.0)
    extremes.add(torch.zeros(0), torch.zeros(0))
    extremes.add(torch.tensor([0.0]), torch.tensor([0.25]))
    assert extremes.relative == float("inf")  # only zeros were expected
    extremes.add(torch.tensor([-2.0, 1.0]), torch.tensor([-2.0, 1.5]))
    assert (extremes.difference, extremes.magnitude, extremes.relative) == (0.5, 2.0, 0.25)


def test_outputs_of_unequal_number_are_no_pair():
    with pytest.raises(ValueError, match="zip"):
        largest_difference([torch.zeros(1)], [])


def test_in_float64_a_difference_below_the_rounding_of_float32_is_seen():
    case = nets.CASES["plain"]
    first, second = case.model(torch.float32), case.model(torch.float32)
    with torch.no_grad():
        second[0].weight.mul_(1 + 2e-7)
    inputs = case.inputs(torch.float32)
    found = change_of_outputs(first, second, inputs)
    assert 1e-9 < found.relative_float64 < 1e-5
    assert found.relative <= found.tolerance and not found.is_rounding
    assert first[0].weight.dtype == torch.float32  # copies were compared


def test_a_hard_coded_precision_has_no_difference_in_float64():
    class Single(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(3, 2)

        def forward(self, x):
            return self.net(x.float())

    model = Single()
    assert change_of_outputs(model, model, (torch.zeros(1, 3),)).double is None
    assert difference(model, model, (torch.zeros(1, 3),)) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("single", "double", "expected"),
    [
        (1e-5, None, True),
        (1.1e-5, None, False),
        (1e-6, 1e-12, True),
        (1e-6, 1.1e-12, False),
        (float("nan"), None, False),
    ],
)
def test_what_is_rounding(single, double, expected):
    change = Change(
        absolute=1.0,
        relative=single,
        double=None if double is None else (1.0, double),
        tolerance=EXACT["float32"],
        tolerance_float64=EXACT["float64"],
    )
    assert change.is_rounding == expected


class Detects(nn.Module):
    """Boxes in pixels and scores of a last layer, whose first weight may be a little off."""

    def __init__(self, off=0.0):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Linear(3, 2)
        with torch.no_grad():
            self.net.weight[0, 0] += off

    def forward(self, x):
        return {"boxes": torch.full((4,), 1280.0, dtype=x.dtype), "scores": [self.net(x).softmax(-1)]}


def test_boxes_in_pixels_do_not_hide_scores_that_are_wrong():
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    found = change_of_outputs(Detects(), Detects(1e-4), (x,))
    assert not found.is_rounding and found.output == "scores.0" and "in the output scores.0" in str(found)
    assert found.relative > 1e-5 and found.absolute / 1280 < 1e-7
    assert difference(Detects(), Detects(1e-4), (x,))[1] == pytest.approx(found.relative)


def test_an_output_that_is_all_noise_is_held_against_its_own_rounding():
    class Noise(nn.Module):
        def __init__(self, order):
            super().__init__()
            self.order = order
            self.register_buffer("values", torch.rand(1000, generator=torch.Generator().manual_seed(0)))

        def forward(self, x):
            return x, self.values[self.order].sum() - self.values.sum()  # zero, but for rounding

    first, second = (Noise(torch.randperm(1000, generator=torch.Generator().manual_seed(seed))) for seed in (1, 4))
    found = change_of_outputs(first, second, (torch.ones(2),))
    assert found.is_rounding and found.output == "1" and found.relative > 1e-2


def test_half_precision_is_held_against_its_own_unit_roundoff():
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(3, 2).half()

        def forward(self, x):
            return self.net(x.half())

    model = Half()
    other = Half()
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        other.net.bias.mul_(1 + 2 * torch.finfo(torch.float16).eps)
    found = change_of_outputs(model, other, (torch.ones(4, 3),))
    assert found.double is None and found.is_rounding and found.tolerance == 10 * torch.finfo(torch.float16).eps
