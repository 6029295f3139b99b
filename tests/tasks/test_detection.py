"""Centre heads: what the cells should tell, the loss, decoding; the task as a whole."""

import dataclasses
import itertools
import math
from pathlib import Path

import pytest
import torch

from prunus.boxes import EVERY, Objects
from prunus.data import KITTIData
from prunus.errors import RecipeError, TrainingError
from prunus.tasks.centre import Centre, _targets
from prunus.tasks.detection import Detection
from prunus.tasks.kitti_metric import KITTIMetric
from prunus.tasks.segmentation import Segmentation

SAMPLE = Path(__file__).parents[3] / "shared" / "data" / "kitti_sample"


@dataclasses.dataclass(frozen=True)
class Signs:
    class_names: tuple[str, ...] = ("stop", "yield")
    targets: str = "boxes"
    size: tuple[int, int] = (32, 64)
    palette: tuple = ((255, 0, 0), (0, 0, 255))


def objects(*boxes, labels, ignored=None):
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return Objects.of(boxes, torch.tensor(labels), ignored=None if ignored is None else torch.tensor(ignored))


def perfect(truths, size=(32, 64), stride=4, num_classes=2):
    """Return an output that tells exactly the objects of each image."""
    height, width = size[0] // stride, size[1] // stride
    heat = torch.full((len(truths), num_classes, height, width), -12.0)
    sides = torch.zeros(len(truths), 4, height, width)
    for number, truth in enumerate(truths):
        for box, label in zip(truth.boxes / stride, truth.labels, strict=True):
            x, y = int((box[0] + box[2]) / 2), int((box[1] + box[3]) / 2)
            heat[number, label, y, x] = 12.0
            for row, column in itertools.product(range(height), range(width)):  # the cells inside tell the box too
                x, y = column + 0.5, row + 0.5
                apart = torch.stack([x - box[0], y - box[1], box[2] - x, box[3] - y])
                if apart.min() > 0:
                    sides[number, :, row, column] = apart.log()
    return {"heat": heat, "sides": sides}


TRUTH = [objects([4, 8, 20, 24], [40, 2, 60, 30], labels=[0, 1]), objects([30, 10, 44, 20], labels=[1])]


def rows(truths, most=3):
    return torch.stack([truth.rows(most) for truth in truths])


def test_decoding_returns_what_the_cells_tell():
    task = Detection(most=5).bind(Signs())
    found = task.predict(perfect(TRUTH))
    assert found.shape == (2, 5, 6)
    kept = [each[each[:, 5] > 0.5] for each in found]
    assert sorted(kept[0][:, 0].tolist()) == [0, 1] and kept[1][:, 0].tolist() == [1]
    order = kept[0][:, 0].argsort()
    torch.testing.assert_close(kept[0][order][:, 1:5], TRUTH[0].boxes, atol=1e-4, rtol=0)
    torch.testing.assert_close(kept[1][:, 1:5], TRUTH[1].boxes, atol=1e-4, rtol=0)


def test_beside_a_peak_nothing_is_found_and_most_is_kept_to():
    output = perfect(TRUTH[1:])
    output["heat"][0, 1, 3, 8] = 6.0  # beside the peak of 12
    found = Detection(most=4).bind(Signs()).predict(output)
    assert int((found[0, :, 5] > 0.5).sum()) == 1
    assert Detection(most=1000).bind(Signs()).predict(output).shape == (1, 1000, 6)


def test_targets_by_hand():
    truth = objects([4, 8, 20, 24], [8, 0, 12, 4], labels=[0, 1], ignored=[False, True])
    peaks, counted, boxes, weights = _targets(truth, torch.ones(2), (8, 16), 4.0)
    assert peaks[0, 4, 3] == 1 and int((peaks == 1).sum()) == 1
    spread = 4 * 0.54 / 6  # cells
    assert peaks[0, 4, 4].item() == pytest.approx(math.exp(-0.5 / spread**2), rel=1e-5)
    assert int((counted == 0).sum()) == 1 and counted[1, 0, 2] == 0  # the ignored cell, of its class alone
    assert weights.sum().item() == pytest.approx(1) and boxes[4, 3].tolist() == [4, 8, 20, 24]
    region = objects([8, 0, 12, 4], labels=[EVERY], ignored=[True])
    assert int((_targets(region, torch.ones(2), (8, 16), 4.0)[1] == 0).sum()) == 2  # of every class


def test_the_smaller_of_two_objects_has_the_cell_that_is_the_centre_of_both():
    truth = objects([0, 0, 60, 32], [24, 12, 32, 20], labels=[0, 0])
    boxes, weights = _targets(truth, torch.ones(2), (8, 16), 4.0)[2:]
    assert boxes[4, 7].tolist() == [24, 12, 32, 20] and weights[4, 7] > 0
    assert boxes[4, 5].tolist() == [0, 0, 60, 32]


def test_each_centre_tells_its_own_box_where_a_smaller_object_reaches_it():
    truth = objects([0, 0, 128, 64], [8, 0, 88, 64], labels=[0, 1])
    boxes, weights = _targets(truth, torch.ones(2), (16, 32), 4.0)[2:]
    assert boxes[8, 16].tolist() == [0, 0, 128, 64] and boxes[8, 12].tolist() == [8, 0, 88, 64]
    assert boxes[8, 13].tolist() == [8, 0, 88, 64] and weights[8, 16] > weights[8, 15] > 0


@pytest.mark.skipif(not SAMPLE.is_dir(), reason=f"{SAMPLE} is absent")
def test_cells_that_tell_their_targets_find_every_object_of_crowded_frames():
    data = KITTIData(root=SAMPLE, train_list="ImageSets/train.txt", test_list="ImageSets/train.txt")
    metric, (height, width) = Detection(metric=KITTIMetric()).bind(data).metrics(), (48, 160)
    centres = torch.stack(torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")).flip(0) + 0.5
    for index in range(25):
        target = data.test()[index][1]
        peaks, _, boxes, _ = _targets(Objects.from_rows(target), torch.ones(3), (height, width), 4.0)
        cells = boxes.movedim(-1, 0) / 4
        sides = torch.cat([centres - cells[:2], cells[2:] - centres]).clamp(min=1e-3).log()
        metric.update({"heat": torch.logit(peaks, eps=1e-4)[None], "sides": sides[None]}, target[None])
    assert metric.compute()[0] == {"ap40_moderate": 1.0, "ap40_easy": 1.0, "ap40_hard": 1.0}


def test_the_loss_is_least_where_the_output_is_right():
    task = Detection().bind(Signs())
    right = task.loss(perfect(TRUTH), rows(TRUTH))
    assert 0 <= right.item() < 0.5
    shifted = perfect(TRUTH)
    shifted["sides"] = shifted["sides"] + 0.5
    missed = {**perfect(TRUTH), "heat": torch.full((2, 2, 8, 16), -12.0)}
    assert task.loss(shifted, rows(TRUTH)) > right + 0.1 and task.loss(missed, rows(TRUTH)) > right + 1


def test_the_loss_has_a_gradient_and_an_image_without_objects_has_one_too():
    task = Detection().bind(Signs())
    output = {
        "heat": torch.zeros(1, 2, 8, 16, requires_grad=True),
        "sides": torch.zeros(1, 4, 8, 16, requires_grad=True),
    }
    nothing = Objects.of(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    loss = task.loss(output, rows([nothing]))
    loss.backward()
    assert loss.item() == pytest.approx(2 * 8 * 16 * 0.25 * math.log(2), rel=1e-4)
    assert output["heat"].grad.abs().sum() > 0


def test_what_lies_in_an_ignored_region_costs_nothing():
    task = Detection().bind(Signs())
    region = objects([0, 0, 64, 32], labels=[EVERY], ignored=[True])
    output = {"heat": torch.full((1, 2, 8, 16), 5.0), "sides": torch.zeros(1, 4, 8, 16)}
    assert task.loss(output, rows([region])).item() == 0


def test_metrics_of_a_perfect_output_are_one():
    metric = Detection().bind(Signs()).metrics()
    metric.update(perfect(TRUTH), rows(TRUTH))
    metrics, per_class = metric.compute()
    assert metrics["map50"] == pytest.approx(1, abs=1e-6) and set(per_class) == {"stop", "yield"}
    assert next(iter(metrics)) == Detection().bind(Signs()).main_metric


def test_drawing_shows_truth_and_detections_on_the_picture():
    task, picture = Detection().bind(Signs()), torch.full((3, 32, 64), 90, dtype=torch.uint8)
    truth = task.draw_on(picture, rows(TRUTH)[0])
    found = task.draw_on(picture, task.predict(perfect(TRUTH))[0])
    for drawn in (truth, found):
        assert drawn.shape == (3, 32, 64) and drawn.dtype == torch.uint8
        assert drawn[:, 20, 4].tolist() == [255, 0, 0] and drawn[:, 28, 59].tolist() == [0, 0, 255]
        assert drawn[:, 30, 30].tolist() == [90, 90, 90]
    assert torch.equal(task.draw_on(picture, torch.zeros(3, 6)), picture)
    assert task.draw(rows(TRUTH)[0], (32, 64))[:, 31, 0].tolist() == [255, 255, 255]


def test_what_does_not_fit_is_refused():
    task = Detection().bind(Signs())
    with pytest.raises(TrainingError, match=r"returns a Tensor, and the task's heads .*heat, sides"):
        task.loss(torch.zeros(1), rows(TRUTH))
    with pytest.raises(TrainingError, match=r"returns a dict with the keys out, and"):
        task.predict({"out": torch.zeros(1)})
    with pytest.raises(TrainingError, match=r"heat is \[2, 3, 8, 16\].*2 classes.*\[2, 2, 'h', 'w'\]"):
        task.loss({"heat": torch.zeros(2, 3, 8, 16), "sides": torch.zeros(2, 4, 8, 16)}, rows(TRUTH))
    with pytest.raises(TrainingError, match=r"target is int64 \[2\], and must be rows of objects"):
        task.loss(perfect(TRUTH), torch.tensor([1, 0]))
    with pytest.raises(RecipeError, match=r"gives boxes: set task.class_path to prunus\.tasks\.detection\.Detection"):
        Segmentation().bind(Signs())
    with pytest.raises(RecipeError, match=r"task\.most"):
        Detection(most=0)
    with pytest.raises(RecipeError, match="box_weight"):
        Centre(box_weight=0)
