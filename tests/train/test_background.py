import threading

import pytest

from prunus.train.background import Background


def test_work_goes_on_beside_and_one_piece_waits_for_the_other():
    seen, may_end = [], threading.Event()
    with Background() as background:
        background.submit(lambda: seen.append(may_end.wait(10)))
        assert seen == []  # submit has returned, the work has not ended
        may_end.set()
        background.submit(lambda: seen.append("second"))
        assert seen[0] is True
        background.wait()
        assert seen == [True, "second"]


def fail():
    raise OSError("disk full")


@pytest.mark.parametrize("then", ["submit", "wait", "leave"])
def test_what_fails_is_raised_at_the_next_occasion_and_once(then):
    with pytest.raises(OSError, match="disk full"), Background() as background:
        background.submit(fail)
        if then == "submit":
            background.submit(print)
        if then == "wait":
            background.wait()


def test_an_error_of_the_body_comes_through_and_carries_the_other():
    with pytest.raises(ZeroDivisionError) as caught, Background() as background:
        background.submit(fail)
        1 / 0  # noqa: B018
    assert caught.value.__notes__ == ["disk full"]


def test_leaving_waits_for_what_runs():
    seen = []
    with Background() as background:
        background.submit(lambda: (threading.Event().wait(0.1), seen.append("done")))
    assert seen == ["done"]
