"""Matching, COCO's and KITTI's average precision, against cases that were computed by hand."""

import dataclasses

import numpy as np
import pytest
import torch

from prunus.boxes import EVERY, Objects
from prunus.errors import RecipeError, TrainingError
from prunus.tasks.coco_metric import COCOMetric
from prunus.tasks.kitti_metric import KITTIMetric
from prunus.tasks.matching import EXCUSED, IGNORED, NOBODY, RIGHT, WRONG, average_precision, match

NAMES = ("Car", "Pedestrian", "Cyclist")


def found(*rows):
    """Return detections [K, 6] of (label, x1, y1, x2, y2, score)."""
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 6)


def objects(*boxes, labels=None, ignored=None, **more):
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    labels = torch.zeros(len(boxes), dtype=torch.int64) if labels is None else torch.tensor(labels)
    return Objects.of(boxes, labels, ignored=None if ignored is None else torch.tensor(ignored), **more)


def test_the_best_score_takes_the_object_and_a_second_one_is_wrong():
    truth = objects([0, 0, 10, 10], [20, 0, 30, 10])
    rows = found((0, 0, 0, 10, 8, 0.6), (0, 0, 0, 10, 10, 0.5), (0, 20, 0, 30, 9, 0.9), (1, 0, 0, 10, 10, 0.99))
    matches = match(rows, truth, [0.5, 0.5])
    assert matches.rows[:, 5].tolist() == pytest.approx([0.99, 0.9, 0.6, 0.5])
    assert matches.outcomes.tolist() == [WRONG, RIGHT, RIGHT, WRONG]  # the first one is of another class
    assert matches.owners.tolist() == [NOBODY, 1, 0, NOBODY]


def test_each_takes_what_it_overlaps_most_of_what_is_left():
    truth = objects([0, 0, 10, 10], [2, 0, 12, 10])
    rows = found((0, 1, 0, 11, 10, 0.9), (0, 2, 0, 12, 10, 0.8), (0, 0, 0, 10, 10, 0.7))
    # the first one overlaps both by 9 / 11 and takes the first object; then the second object, then nothing is left
    assert match(rows, truth, [0.5]).owners.tolist() == [0, 1, NOBODY]


def test_ignored_objects_and_regions_excuse_what_lies_there():
    truth = objects([0, 0, 10, 10], [20, 0, 40, 20], labels=[0, EVERY], ignored=[True, True])
    rows = found((0, 0, 0, 10, 9, 0.9), (0, 0, 0, 9, 10, 0.8), (0, 22, 2, 26, 6, 0.7), (0, 35, 0, 51, 20, 0.6))
    # two on the ignored object; a small one inside the region; 5 of 16 columns of the last one inside it
    assert match(rows, truth, [0.5]).outcomes.tolist() == [IGNORED, IGNORED, IGNORED, WRONG]


def test_what_is_too_low_to_count_takes_an_object_that_nobody_else_takes():
    truth, unseen = objects([0, 0, 10, 10]), torch.tensor([True, False])
    rows = found((0, 0, 0, 10, 9, 0.9), (0, 0, 0, 10, 10, 0.2))
    assert match(rows, truth, [0.5], unseen).outcomes.tolist() == [IGNORED, RIGHT]
    assert match(rows[:1], truth, [0.5], unseen[:1]).outcomes.tolist() == [EXCUSED]


def test_average_precision_by_hand():
    recalls = np.arange(1, 41) / 40
    scores, outcomes = np.array([0.9, 0.8, 0.7]), np.array([RIGHT, WRONG, RIGHT])
    # recall 1/2 at precision 1, recall 1 at precision 2/3: half of the positions each
    assert average_precision(scores, outcomes, 2, recalls) == pytest.approx((20 * 1 + 20 * 2 / 3) / 40)
    # a third object that is never found: positions up to 13/40 and up to 26/40
    assert average_precision(scores, outcomes, 3, recalls) == pytest.approx((13 * 1 + 13 * 2 / 3) / 40)
    # equal scores come together: precision 1/2 at recall 1/2 already
    tied = np.array([0.9, 0.9, 0.7])
    assert average_precision(tied, outcomes, 2, recalls) == pytest.approx(2 / 3)
    assert average_precision(scores[:0], outcomes[:0], 2, recalls) == 0


def test_coco_by_hand():
    counts = COCOMetric().bind(("a", "b"))
    truth = [objects([0, 0, 40, 40], [50, 50, 70, 70], labels=[0, 1]), objects([0, 0, 100, 100])]
    first = found((0, 0, 0, 40, 40, 0.9), (1, 50, 50, 70, 66.5, 0.8))
    second = found((0, 0, 0, 100, 72, 0.7))
    counts.update(torch.stack([first, torch.cat([second, found((0, 0, 0, 0, 0, 0))])]), truth)
    metrics, per_class = counts.compute()
    # a: at 0.5 to 0.7 both are found: 1; above, one of two: recalls 0 to 0.5, 51 of 101 positions
    a = (5 * 1 + 5 * 51 / 101) / 10
    b = 7 / 10  # an IoU of 0.825: from 0.5 to 0.8
    assert per_class == {"a": pytest.approx(a, abs=1e-6), "b": pytest.approx(b, abs=1e-6)}
    assert next(iter(metrics)) == "map" and metrics["map"] == pytest.approx((a + b) / 2, abs=1e-6)
    assert metrics["map50"] == pytest.approx(1)
    assert metrics["map75"] == pytest.approx((51 / 101 + 1) / 2, abs=1e-6)
    assert metrics["map_small"] == pytest.approx(b, abs=1e-6) and metrics["map_medium"] == pytest.approx(1)


def test_coco_is_what_pycocotools_counts():
    """pycocotools is the metric's own program."""
    from torchmetrics.detection import MeanAveragePrecision

    pytest.importorskip("pycocotools")
    generator = torch.Generator().manual_seed(0)
    ours, theirs = COCOMetric().bind(("a", "b", "c")), MeanAveragePrecision(backend="pycocotools")
    for _ in range(12):
        corners = torch.rand(5, 2, generator=generator) * 200
        truth = Objects.of(
            torch.cat([corners, corners + 10 + 90 * torch.rand(5, 2, generator=generator)], dim=1),
            torch.randint(3, (5,), generator=generator),
            ignored=torch.tensor([False, False, False, False, True]),
        )
        rows = torch.zeros(9, 6)
        rows[:5, 0], rows[:5, 1:5] = truth.labels, truth.boxes + 6 * torch.randn(5, 4, generator=generator)
        rows[5:, 1:5] = torch.tensor([0.0, 0, 30, 30]) + 150 * torch.rand(4, 1, generator=generator)
        rows[:, 5] = torch.rand(9, generator=generator)
        ours.update(rows[None], [truth])
        prediction = {"boxes": rows[:, 1:5], "scores": rows[:, 5], "labels": rows[:, 0].long()}
        theirs.update([prediction], [{"boxes": truth.boxes, "labels": truth.labels, "iscrowd": truth.ignored.long()}])
    found, expected = ours.compute()[0], theirs.compute()
    assert 0.05 < found["map"] < 0.9
    for name, key in (("map", "map"), ("map50", "map_50"), ("map75", "map_75"), ("map_medium", "map_medium")):
        assert found[name] == pytest.approx(float(expected[key]), abs=1e-6)


def test_coco_counts_in_the_pixels_of_the_file_and_excuses_regions():
    counts = COCOMetric(main="map50").bind(("a", "b"))
    truth = objects([0, 0, 20, 20], [50, 0, 90, 40], labels=[0, EVERY], ignored=[False, True], scale=0.25)
    counts.update(found((0, 0, 0, 20, 20, 0.5), (0, 60, 10, 70, 20, 0.9))[None], [truth])
    metrics, per_class = counts.compute()
    assert next(iter(metrics)) == "map50" and metrics["map50"] == pytest.approx(
        1
    )  # the better score lies in the region
    assert metrics["map_medium"] == pytest.approx(1) and "map_small" not in metrics  # 80 x 80 in the file
    assert per_class == {"a": pytest.approx(1), "b": None}


def test_coco_without_objects_or_library_is_refused(monkeypatch):
    counts = COCOMetric().bind(("a",))
    counts.update(found((0, 0, 0, 5, 5, 0.5))[None], [objects()])
    with pytest.raises(TrainingError, match="no object"):
        counts.compute()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RecipeError, match=r"pip install 'prunus\[detection\]'"):
        COCOMetric().bind(("a",))
    with pytest.raises(RecipeError, match=r"task\.metric\.main"):
        COCOMetric(main="map95")


def kitti(truth, rows):
    counts = KITTIMetric().bind(NAMES)
    counts.update(rows[None], [truth])
    return counts.compute()


def test_kitti_asks_more_of_cars():
    truth = objects([0, 0, 100, 100], [200, 0, 300, 100], labels=[0, 1])
    metrics, per_class = kitti(truth, found((0, 0, 0, 100, 65, 0.9), (1, 200, 0, 300, 65, 0.9)))
    assert per_class == {"Car": 0, "Pedestrian": 1, "Cyclist": None}
    assert metrics == {"ap40_moderate": 0.5, "ap40_easy": 0.5, "ap40_hard": 0.5}
    assert kitti(truth, found((0, 0, 0, 100, 71, 0.9)))[1]["Car"] == 1


def test_kitti_difficulties_by_hand():
    easy, occluded, low = [0, 0, 100, 50], [200, 0, 300, 50], [400, 0, 450, 30]
    truth = objects(easy, occluded, low)
    truth = dataclasses.replace(truth, occlusion=torch.tensor([0.0, 2.0, 0.0]))
    rows = found((0, *easy, 0.9), (0, *occluded, 0.8), (0, 600, 0, 700, 50, 0.7), (0, *low, 0.6))
    metrics, _ = kitti(truth, rows)
    # easy: one object, found first; that the occluded and the low one are found is neither right nor wrong
    assert metrics["ap40_easy"] == pytest.approx(1)
    # moderate: two objects (easy, low), the wrong one between them: 1 up to recall 1/2, then 2/3
    assert metrics["ap40_moderate"] == pytest.approx((20 + 20 * 2 / 3) / 40)
    # hard: three objects, wrong third: 1 up to recall 26/40, then 3/4
    assert metrics["ap40_hard"] == pytest.approx((26 + 14 * 3 / 4) / 40)


def test_kitti_heights_are_those_of_the_image_file():
    truth = objects([0, 0, 50, 22], scale=0.5)  # 44 pixels high in the file
    metrics, _ = kitti(truth, found((0, 0, 0, 50, 22, 0.9)))
    assert metrics == {"ap40_moderate": 1, "ap40_easy": 1, "ap40_hard": 1}
    low = objects([0, 0, 50, 22], scale=1.0)
    with pytest.raises(TrainingError, match="no object"):
        kitti(low, found((0, 0, 0, 50, 22, 0.9)))


def test_kitti_excuses_vans_regions_and_what_is_too_low():
    truth = objects(
        [0, 0, 100, 50], [200, 0, 300, 50], [400, 0, 600, 50], labels=[0, 0, EVERY], ignored=[False, True, True]
    )
    rows = found(
        (0, 0, 0, 100, 50, 0.5), (0, 200, 0, 300, 50, 0.9), (0, 410, 0, 450, 50, 0.9), (0, 700, 0, 750, 20, 0.9)
    )
    assert kitti(truth, rows)[0]["ap40_easy"] == 1


def test_kitti_over_batches_and_classes_is_a_mean():
    counts = KITTIMetric().bind(NAMES)
    for score in (0.9, 0.4):
        truth = objects([0, 0, 100, 100], [200, 0, 300, 100], labels=[0, 2])
        rows = found((0, 0, 0, 100, 100, score), (2, 200, 0, 300, 100, score), (2, 500, 0, 600, 100, 0.6))
        counts.update(rows[None], [truth])
    metrics, per_class = counts.compute()
    cyclist = (20 * 1 + 20 * 2 / 4) / 40  # right 0.9, wrong 0.6 twice, right 0.4
    assert per_class == {"Car": 1, "Pedestrian": None, "Cyclist": pytest.approx(cyclist)}
    assert metrics["ap40_moderate"] == pytest.approx((1 + cyclist) / 2)
