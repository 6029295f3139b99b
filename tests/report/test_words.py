import pytest

from prunus.report import words


def plain(text: str) -> str:
    return text.replace(words.GAP, " ").replace(words.MINUS, "-")


@pytest.mark.parametrize(
    ("show", "value", "expected"),
    [
        (words.share, 0.4213, "42.1 %"),
        (words.share, 0.0312, "3.12 %"),
        (words.share, 1.0, "100.0 %"),
        (words.percent, 0.3849, "38 %"),
        (words.percent, 0.0312, "3.1 %"),
        (words.points, -0.0042, "-0.4 points"),
        (words.points, 0.012, "+1.2 points"),
        (words.points, -0.0003, "±0.0 points"),
        (words.count, 1_204_331_520, "1.20 G"),
        (words.count, 999_960, "1.00 M"),
        (words.count, 694_022, "694 k"),
        (words.count, 17, "17"),
        (words.count_like(1_204_331_520), 457_103_411, "0.457 G"),
        (words.milliseconds, 9.871, "9.87 ms"),
        (words.milliseconds, 1234.5, "1234 ms"),
        (words.seconds, 9.96, "9.96 s"),
        (words.seconds, 161.2, "2 min 41 s"),
        (words.seconds, 59.996, "1 min 0 s"),
        (words.seconds, 7384, "2 h 3 min"),
        (words.megabytes, 182.31, "182 MB"),
        (words.tiny, 3.14e-7, "3.1e-07"),
        (words.tiny, 0.0, "0"),
        (words.agreement, 0.999997, "over 99.999 %"),
        (words.agreement, 1.0, "100.000 %"),
        (words.agreement, 0.9731, "97.310 %"),
    ],
)
def test_a_number_is_shown_as_a_reader_wants_it(show, value, expected):
    assert plain(show(value)) == expected


FORMS = (
    words.share, words.percent, words.points, words.count, words.milliseconds, words.seconds, words.megabytes,
    words.tiny, words.number, words.agreement,
)  # fmt: skip


@pytest.mark.parametrize("show", FORMS)
@pytest.mark.parametrize(("value", "expected"), [(None, "n/a"), (float("nan"), "nan"), (float("inf"), "inf")])
def test_what_is_missing_or_not_finite_is_said(show, value, expected):
    assert show(value) == expected


def test_names_known_and_unknown():
    assert words.backend_name("onnxruntime") == "ONNX Runtime"
    assert words.backend_name("my_board") == "my_board"
    assert words.metric_name("pixel_accuracy") == "pixel accuracy"
    assert words.class_metric_name("miou") == "IoU"
    assert words.metric_name("mean") == "mean over tasks"
    assert words.metric_name("road.miou, objects.map50") == "road mIoU, objects mAP50"
    assert words.metric_name("f0.5") == "f0.5" and words.metric_name("road.f0.5") == "road f0.5"
    assert words.class_metric_name("road.miou, objects.map50") == "road IoU, objects AP50"
