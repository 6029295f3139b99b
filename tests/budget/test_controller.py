import pytest
import tiny
import torch

import prunus
from prunus.budget import Budget
from prunus.budget.controller import Controller, Goal, press, thresholds
from prunus.errors import BudgetError, RecipeError


@pytest.fixture(scope="module")
def groups():
    return prunus.trace(tiny.build(), tiny.example())


@pytest.mark.parametrize(
    "settings",
    [{"begin": 0.5, "end": 0.5}, {"begin": -0.1}, {"end": 1.1}, {"every": 0}],
)
def test_settings_that_make_no_sense(settings):
    with pytest.raises(RecipeError, match=r"0 <= begin < end <= 1, every >= 1"):
        Controller(budget=Budget(macs=0.5), **settings)


@pytest.mark.parametrize(
    ("begin", "end", "every", "epochs", "expected"),
    [
        (0.1, 0.5, 1, 10, (1, 1, 4)),
        (0.1, 0.5, 2, 10, (1, 2, 2)),
        (0.1, 0.5, 3, 10, (1, 3, 1)),  # what is left over is an epoch without pressure
        (0.1, 0.5, 9, 10, (1, 4, 1)),  # never longer than there is time
        (0.1, 0.5, 1, 1, (0, 1, 1)),  # one epoch shrinks at once
        (0.0, 1.0, 1, 3, (0, 1, 3)),
        (0.9, 1.0, 1, 2, (1, 1, 1)),
    ],
)
def test_segments(begin, end, every, epochs, expected):
    controller = Controller(budget=Budget(macs=0.5), begin=begin, end=end, every=every)
    assert controller.segments(epochs) == expected


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, (5, 1, 7)),
        ({"pace": "fast"}, (2, 1, 6)),
        ({"pace": "fast", "end": 0.6}, (2, 1, 10)),
        ({"begin": 0.0}, (0, 1, 12)),
    ],
)
def test_a_pace_says_when_where_nobody_else_does(settings, expected):
    assert Controller(budget=Budget(macs=0.5), **settings).segments(20) == expected


def test_an_unknown_pace_names_those_there_are():
    with pytest.raises(RecipeError, match=r"'slow'; choose one of accurate, fast"):
        Controller(pace="slow")


@pytest.mark.parametrize("epochs", range(1, 30))
@pytest.mark.parametrize("every", [1, 2, 5])
def test_segments_always_end_within_the_training(epochs, every):
    first, length, number = Controller(budget=Budget(macs=0.5), every=every).segments(epochs)
    assert first >= 0 and length >= 1 and number >= 1
    assert first + length * number <= epochs


def test_the_target_goes_from_the_wide_cost_to_the_budget_and_fast_at_first(groups):
    goal = Goal.of(groups, Budget(macs=0.4, params=0.5))
    assert goal.at(0.0) == {"macs": groups.macs(), "params": groups.params()}
    assert goal.at(1.0) == {"macs": 0.4 * groups.macs(), "params": 0.5 * groups.params()}
    half = goal.at(0.5)["macs"]
    assert half == pytest.approx(groups.macs() * (0.4 + 0.6 / 8))  # (1 - 1/2)^3 of the way is left


def test_a_target_out_of_reach_names_what_is_within(groups):
    with pytest.raises(BudgetError, match=r"the smallest reachable is macs [\d,]+, params [\d,]+"):
        Goal.of(groups, Budget(macs=0.9, params=10))


@pytest.mark.parametrize("progress", [0.2, 0.6, 1.0])
def test_what_is_pressed_brings_the_cost_just_below_the_target(groups, progress):
    importance = torch.rand(len(groups), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    goal = Goal.of(groups, Budget(macs=0.4))
    pressed = press(groups, importance, goal, progress, 1)
    bound = goal.at(progress)["macs"]
    cost = groups.cost.total("macs", ~pressed)
    assert cost <= bound
    assert not bool((pressed & ~groups.exact).any())
    # giving back the most important of the pressed groups of some layer would pass the bound
    returned = []
    for layer in groups.layers[pressed].unique():
        inside = (pressed & (groups.layers == layer)).nonzero().flatten()
        one = pressed.clone()
        one[inside[importance[inside].argmax()]] = False
        returned.append(groups.cost.total("macs", ~one))
    assert max(returned) > bound


def test_norms_fall_in_a_straight_line_to_exactly_zero():
    norms, pressed = torch.tensor([4.0, 2.0, 0.0, 3.0]), torch.tensor([True, True, True, False])
    seen = []
    for left in (4, 3, 2, 1):
        norms = (norms - thresholds(norms, pressed, left)).clamp(min=0)
        seen.append(norms.tolist())
    assert seen == [[3.0, 1.5, 0.0, 3.0], [2.0, 1.0, 0.0, 3.0], [1.0, 0.5, 0.0, 3.0], [0.0, 0.0, 0.0, 3.0]]
