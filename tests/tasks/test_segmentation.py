import math
from dataclasses import dataclass, field

import pytest
import torch
from torch.nn import functional

from prunus.errors import RecipeError, TrainingError
from prunus.tasks.segmentation import BoundSegmentation, Segmentation, class_weights, intersection_over_union

VOID = 255


@dataclass(frozen=True)
class Street:
    class_names: tuple[str, ...] = ("road", "sky", "pole")
    targets: str = "masks"
    palette: tuple[tuple[int, int, int], ...] = ((1, 2, 3), (4, 5, 6), (7, 8, 9))
    ignore_index: int = VOID
    frequencies: torch.Tensor = field(default_factory=lambda: torch.tensor([0.7, 0.3, 0.0]))

    def class_frequencies(self):
        return self.frequencies


def scores_for(prediction, num_classes=3):
    """Scores [N, C, H, W] whose argmax is `prediction`."""
    return functional.one_hot(torch.as_tensor(prediction), num_classes).permute(0, 3, 1, 2).float()


def test_weights_follow_the_formula_and_an_absent_class_stays_finite():
    weights = class_weights(torch.tensor([0.7, 0.3, 0.0]), 1.10)
    expected = [1 / math.log(1.8), 1 / math.log(1.4), 1 / math.log(1.1)]
    assert weights.tolist() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("offset", [1.0, 0.5, float("nan")])
def test_an_offset_without_finite_weights_is_refused(offset):
    with pytest.raises(RecipeError, match="class_weight_offset must be above 1"):
        Segmentation(class_weight_offset=offset).bind(Street())


def test_bind_takes_classes_void_and_weights_from_the_data():
    task = Segmentation().bind(Street())
    assert (task.class_names, task.ignore_index) == (("road", "sky", "pole"), VOID)
    torch.testing.assert_close(task.class_weights, class_weights(Street().frequencies, 1.10))
    assert Segmentation(class_weight_offset=None).bind(Street()).class_weights.tolist() == [1, 1, 1]


def test_loss_is_the_weighted_mean_over_pixels_that_are_not_void():
    torch.manual_seed(0)
    task = Segmentation().bind(Street())
    output, target = torch.randn(2, 3, 4, 5), torch.randint(0, 3, (2, 4, 5))
    target[0, :2] = VOID
    expected = functional.cross_entropy(output, target, task.class_weights, ignore_index=VOID)
    torch.testing.assert_close(task.loss(output, target), expected)


def test_loss_by_hand():
    task = Segmentation().bind(Street())
    output = torch.zeros(1, 3, 1, 2)
    output[0, 0, 0, 0] = math.log(2)  # probabilities 1/2, 1/4, 1/4 and thrice 1/3
    loss = task.loss(output, torch.tensor([[[0, 1]]]))
    road, sky, _ = task.class_weights.tolist()
    assert loss.item() == pytest.approx((road * math.log(2) + sky * math.log(3)) / (road + sky), rel=1e-6)


def test_a_batch_of_void_gives_zero_loss_and_zero_gradients():
    task = Segmentation().bind(Street())
    output = torch.randn(1, 3, 2, 2, requires_grad=True)
    loss = task.loss(output, torch.full((1, 2, 2), VOID))
    loss.backward()
    assert loss.item() == 0
    assert output.grad.abs().max() == 0


def test_half_precision_output_gives_a_single_precision_loss():
    task = Segmentation().bind(Street())
    loss = task.loss(torch.zeros(1, 3, 2, 2, dtype=torch.bfloat16), torch.zeros(1, 2, 2, dtype=torch.int64))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(math.log(3), rel=1e-6)


def test_iou_from_a_confusion_matrix_by_hand():
    confusion = torch.tensor([[5, 1, 0, 0], [2, 3, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0]])
    # The third class is nowhere: undefined. The fourth is only predicted: a plain zero.
    assert intersection_over_union(confusion) == [5 / 8, 3 / 7, None, 0.0]


def test_metric_counts_the_whole_set_and_leaves_void_out():
    metrics = Segmentation().bind(Street()).metrics()
    truth = torch.tensor([[[0, 0], [1, VOID]], [[0, 1], [1, 1]]])
    prediction = [[[0, 1], [1, 2]], [[0, 1], [0, 1]]]
    # Over both images: road 2 right, 1 as sky; sky 3 right, 1 as road; the void pixel counts nowhere.
    for image in range(2):
        metrics.update(scores_for(prediction[image : image + 1]), truth[image : image + 1])
    values, per_class = metrics.compute()
    assert per_class == {"road": 2 / 4, "sky": 3 / 5, "pole": None}
    assert list(values) == ["miou", "pixel_accuracy"]
    assert values == {"miou": pytest.approx(0.55), "pixel_accuracy": pytest.approx(5 / 7)}


def test_the_set_is_counted_as_one_not_as_a_mean_over_images():
    metrics = Segmentation().bind(Street()).metrics()
    metrics.update(scores_for([[[0, 0, 0, 0]]]), torch.tensor([[[0, 0, 0, 0]]]))  # alone: road 1
    metrics.update(scores_for([[[1, 1, 1, 1]]]), torch.tensor([[[0, 1, 1, 1]]]))  # alone: road 0, sky 3/4
    _, per_class = metrics.compute()
    assert per_class == {"road": 4 / 5, "sky": 3 / 4, "pole": None}


def test_metric_agrees_with_a_slow_count():
    torch.manual_seed(1)
    task = BoundSegmentation(class_names=[str(index) for index in range(7)])
    metrics = task.metrics()
    output, target = torch.randn(3, 7, 16, 16), torch.randint(0, 7, (3, 16, 16))
    target[torch.rand(target.shape) < 0.2] = VOID
    metrics.update(output, target)
    values, per_class = metrics.compute()
    predicted, known = task.predict(output), target != VOID
    for index in range(7):
        truth, found = (target == index) & known, (predicted == index) & known
        assert per_class[str(index)] == pytest.approx(((truth & found).sum() / (truth | found).sum()).item())
    assert values["miou"] == pytest.approx(sum(per_class.values()) / 7)
    assert values["pixel_accuracy"] == pytest.approx((predicted == target)[known].float().mean().item())


@pytest.mark.parametrize("ignore_index", [0, 2, -1, VOID])
def test_any_void_value_will_do(ignore_index):
    metrics = BoundSegmentation(class_names=("a", "b", "c"), ignore_index=ignore_index).metrics()
    metrics.update(scores_for([[[1, 1]]]), torch.tensor([[[1, ignore_index]]]))
    assert metrics.compute() == ({"miou": 1.0, "pixel_accuracy": 1.0}, {"a": None, "b": 1.0, "c": None})


def test_nothing_counted_is_an_error_not_a_nan():
    metrics = Segmentation().bind(Street()).metrics()
    metrics.update(scores_for([[[0, 0]]]), torch.full((1, 1, 2), VOID))
    with pytest.raises(TrainingError, match="no pixel that is not void"):
        metrics.compute()


def test_two_metrics_of_one_task_are_apart():
    task = Segmentation().bind(Street())
    first, second = task.metrics(), task.metrics()
    first.update(scores_for([[[0]]]), torch.tensor([[[0]]]))
    second.update(scores_for([[[1]]]), torch.tensor([[[0]]]))
    assert first.compute()[0]["miou"] == 1.0
    assert second.compute()[0]["miou"] == 0.0


def test_an_encoders_low_resolution_is_compared_with_the_sampled_mask():
    task = Segmentation(class_weight_offset=None).bind(Street())
    target = torch.zeros(1, 16, 24, dtype=torch.int64)
    target[:, 8:, 16:] = 1
    output = scores_for([[[0, 0, 0], [0, 0, 1]]]) * 100
    assert task.loss(output, target).item() == pytest.approx(0, abs=1e-6)
    metrics = task.metrics()
    metrics.update(output, target)
    assert metrics.compute()[0]["miou"] == 1.0
    assert task.predict(output).tolist() == [[[0, 0, 0], [0, 0, 1]]]


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 4, 8, 8), r"\[1, 4, 8, 8\].*3 classes needs \[1, 3, h, w\]"),
        ((2, 3, 8, 8), "shape"),
        ((1, 3), "shape"),
        ((1, 3, 3, 8), "whole multiple"),
        ((1, 3, 4, 8), "whole multiple"),
        ((1, 3, 16, 16), "whole multiple"),
    ],
)
def test_an_output_that_does_not_fit_is_refused(shape, message):
    task = Segmentation().bind(Street())
    target = torch.zeros(1, 8, 8, dtype=torch.int64)
    for use in (task.loss, task.metrics().update):
        with pytest.raises(TrainingError, match=message):
            use(torch.zeros(shape), target)


def test_a_mask_is_drawn_in_the_colours_of_its_classes():
    picture = Segmentation().bind(Street()).draw(torch.tensor([[0, 2], [VOID, 1]]), (2, 2))
    assert picture.movedim(0, -1).tolist() == [[[1, 2, 3], [7, 8, 9]], [[0, 0, 0], [4, 5, 6]]]


def test_data_with_labels_is_refused():
    with pytest.raises(RecipeError, match=r"Segmentation needs masks.*prunus\.tasks\.classification"):
        Segmentation().bind(Street(targets="labels"))


def test_an_output_that_is_no_tensor_is_refused():
    task = Segmentation().bind(Street())
    with pytest.raises(TrainingError, match=r"returns a dict with the tensors out, aux, .*task\.output"):
        task.loss({"out": torch.zeros(1), "aux": torch.zeros(1)}, torch.zeros(1, 8, 8, dtype=torch.long))
    with pytest.raises(TrainingError, match="returns a tuple with no tensor"):
        task.metrics().update(("scores",), torch.zeros(1, 8, 8, dtype=torch.long))


@pytest.mark.parametrize("ignored", [0, 1, 2])
def test_a_class_that_is_ignored_is_in_no_mean(ignored):
    data = Street(ignore_index=ignored, frequencies=torch.tensor([0.5, 0.5, 0.5]))
    metrics = Segmentation().bind(data).metrics()
    first, second = (label for label in range(3) if label != ignored)
    truth = torch.tensor([[[first, first], [second, ignored]]])
    metrics.update(scores_for([[[first, ignored], [second, second]]]), truth)
    values, per_class = metrics.compute()
    # Of `first` one pixel of two is found; `second` is right where it counts; the ignored class is nowhere.
    expected = {data.class_names[first]: 1 / 2, data.class_names[second]: 1.0, data.class_names[ignored]: None}
    assert per_class == expected
    assert values == {"miou": pytest.approx(0.75), "pixel_accuracy": pytest.approx(2 / 3)}


@pytest.mark.parametrize("target", [[[0]], {"mask": 1}, None, torch.zeros(1, 2, 2), torch.zeros(1, 1, 2, 2).long()])
def test_a_target_that_is_no_mask_is_named(target):
    task = Segmentation().bind(Street())
    for call in (task.loss, task.metrics().update):
        with pytest.raises(TrainingError, match=r"a batch's target is .*must be whole numbers \[N, H, W\]"):
            call(torch.zeros(1, 3, 2, 2), target)


@pytest.mark.parametrize("names", ["ab", (), None, ("road", ""), ("road", 1)])
def test_names_of_classes_are_a_tuple_of_text(names):
    with pytest.raises(RecipeError, match=r"class_names of Street is .*: give a tuple of names, one per class"):
        Segmentation().bind(Street(class_names=names))


def test_classes_of_one_name_are_refused():
    with pytest.raises(RecipeError, match=r"Street gives several classes the name road, .* rename them"):
        Segmentation().bind(Street(class_names=("road", "road", "sky")))


def test_it_decodes_nothing_that_a_file_could_hold():
    task = BoundSegmentation(class_names=("road", "sky"))
    with pytest.raises(RecipeError, match=r"deploy\.decode: BoundSegmentation has no decoding"):
        task.deployed(torch.nn.Identity())
