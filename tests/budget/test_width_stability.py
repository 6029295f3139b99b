import pytest

from prunus.budget import Budget
from prunus.budget.controller import Controller
from prunus.budget.width_stability import is_stable, similarity
from prunus.errors import RecipeError


def test_similarity_by_hand():
    assert similarity([10, 20], [10, 20]) == 1
    assert similarity([10, 0], [0, 10]) == 0
    assert similarity([10, 30], [30, 30]) == pytest.approx(1 - (20 / 40 + 0) / 2)
    assert similarity([0, 4], [0, 4]) == 1  # a layer that has gone in both


def test_settled_is_a_look_back_on_five():
    still, moved = [8, 8], [16, 8]
    assert not is_stable([still] * 5, 0.9)  # four before
    assert is_stable([still] * 6, 1.0)
    history = [moved, still, still, still, still, still]
    mean = (4 + similarity(moved, still)) / 5
    assert is_stable(history, mean) and not is_stable(history, mean + 1e-9)
    assert is_stable([moved] * 9 + [still] * 6, 1.0)  # older ones are forgotten


def test_segments_begin_where_the_widths_have_settled():
    controller = Controller(budget=Budget(macs=0.5), begin=0.1, end=0.8, every=2, settled=0.98)
    assert controller.window(20) == (2, 14)
    assert controller.segments(20) == (20, 2, 0)  # not yet
    assert controller.segments(20, 5) == (5, 2, 5)
    assert controller.segments(20, 14) == (14, 2, 1)
    plain = Controller(budget=Budget(macs=0.5), begin=0.1, end=0.8, every=2)
    assert plain.segments(20) == (2, 2, 7)


@pytest.mark.parametrize("value", [0.0, 1.5])
def test_a_similarity_is_one(value):
    with pytest.raises(RecipeError, match="similarity"):
        Controller(settled=value)
