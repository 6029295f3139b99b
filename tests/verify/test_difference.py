import nets
import pytest
import torch
from torch import nn

from prunus.verify import Extremes, difference, difference_in_float64, is_rounding, largest_difference


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
    _, single = difference(first, second, inputs)
    double = difference_in_float64(first, second, inputs)
    assert double is not None and 1e-9 < double[1] < 1e-5
    assert is_rounding(single) and not is_rounding(single, double[1])
    assert first[0].weight.dtype == torch.float32  # copies were compared


def test_a_hard_coded_precision_has_no_difference_in_float64():
    class Single(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(3, 2)

        def forward(self, x):
            return self.net(x.float())

    model = Single()
    assert difference_in_float64(model, model, (torch.zeros(1, 3),)) is None
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
    assert is_rounding(single, double) == expected
