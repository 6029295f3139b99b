"""Classification: the loss by hand, accuracy over a whole set, what a class looks like."""

import dataclasses
import math

import pytest
import torch

from prunus.errors import RecipeError, TrainingError
from prunus.tasks.classification import CARD, BoundClassification, Classification


@dataclasses.dataclass(frozen=True)
class Signs:
    class_names: tuple[str, ...] = ("stop", "yield", "no entry")
    targets: str = "labels"


def test_loss_with_label_smoothing_by_hand():
    task = Classification(label_smoothing=0.3).bind(Signs())
    scores = torch.log(torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]]))
    share = 0.1  # of each class; the true one has 0.7 + 0.1
    first = -(0.8 * math.log(0.5) + 2 * share * math.log(0.25))
    second = -(0.8 * math.log(0.1) + share * math.log(0.8) + share * math.log(0.1))
    assert task.loss(scores, torch.tensor([0, 2])).item() == pytest.approx((first + second) / 2, rel=1e-5)
    plain = Classification().bind(Signs()).loss(scores, torch.tensor([0, 2])).item()
    assert plain == pytest.approx(-(math.log(0.5) + math.log(0.1)) / 2, rel=1e-5)
    assert task.loss(scores.bfloat16(), torch.tensor([0, 2])).dtype == torch.float32


def test_accuracy_is_of_the_whole_set_whatever_the_batches():
    names = [f"class {i}" for i in range(7)]
    torch.manual_seed(0)
    scores, target = torch.randn(50, 7), torch.randint(0, 6, (50,))  # the last class never occurs
    metric = BoundClassification(class_names=names).metrics()
    for part, truth in zip(scores.split(13), target.split(13), strict=True):
        metric.update(part, truth)
    metrics, per_class = metric.compute()
    ranked = scores.argsort(1, descending=True)
    hits = ranked[:, 0] == target
    assert list(metrics) == ["top1", "top5"]
    assert metrics["top1"] == pytest.approx(hits.float().mean().item())
    assert metrics["top5"] == pytest.approx((ranked[:, :5] == target[:, None]).any(1).float().mean().item())
    assert per_class.pop("class 6") is None
    for number, value in enumerate(per_class.values()):
        assert value == pytest.approx(hits[target == number].float().mean().item())


def test_with_few_classes_top5_is_all():
    metric = Classification().bind(Signs()).metrics()
    metric.update(torch.randn(4, 3), torch.tensor([0, 1, 2, 0]))
    assert metric.compute()[0]["top5"] == 1.0


def test_predict_and_draw():
    task = Classification().bind(Signs())
    assert task.predict(torch.tensor([[0.0, 2.0, 1.0], [3.0, 0.0, 0.0]])).tolist() == [1, 0]
    stop, no_entry = task.draw(torch.tensor(0), (32, 32)), task.draw(torch.tensor(2), (32, 32))
    assert stop.shape == (3, *CARD) and stop.dtype == torch.uint8
    assert int(stop.min()) < 50 < 250 < int(stop.max())  # it says something
    assert not torch.equal(stop, no_entry)


def test_what_does_not_fit_is_refused():
    task = Classification().bind(Signs())
    with pytest.raises(TrainingError, match=r"\[2, 4\] .*3 classes needs \[2, 3\]"):
        task.loss(torch.zeros(2, 4), torch.zeros(2, dtype=torch.long))
    with pytest.raises(TrainingError, match="no image"):
        task.metrics().compute()
    with pytest.raises(RecipeError, match="label_smoothing"):
        Classification(label_smoothing=1.0)
    with pytest.raises(RecipeError, match=r"needs labels.*gives masks.*prunus\.tasks\.segmentation"):
        Classification().bind(Signs(targets="masks"))


def test_an_output_that_is_no_tensor_is_refused():
    task = Classification().bind(Signs())
    with pytest.raises(TrainingError, match=r"returns a dict with the tensors out, aux, .*task\.output"):
        task.loss({"out": torch.zeros(1), "aux": torch.zeros(1)}, torch.zeros(2, dtype=torch.long))
    with pytest.raises(TrainingError, match="returns a tuple with no tensor"):
        task.metrics().update(("scores",), torch.zeros(2, dtype=torch.long))


@pytest.mark.parametrize("target", [[0, 2], {"labels": 1}, torch.zeros(2), torch.eye(3)[:2], torch.tensor([[0], [2]])])
def test_a_target_that_is_no_class_numbers_is_named(target):
    task = Classification().bind(Signs())
    for call in (task.loss, task.metrics().update):
        with pytest.raises(TrainingError, match=r"a batch's target is .*must be whole numbers \[N\] of the classes"):
            call(torch.zeros(2, 3), target)


@pytest.mark.parametrize("kind", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_whole_numbers_of_any_size_are_targets(kind):
    task, scores = Classification().bind(Signs()), torch.tensor([[2.0, 0, 0], [0, 0, 3.0]])
    target, metric = torch.tensor([0, 1], dtype=kind), task.metrics()
    assert torch.equal(task.loss(scores, target), task.loss(scores, target.long()))
    metric.update(scores, target)
    assert metric.compute()[0]["top1"] == 0.5


def test_classes_of_one_name_are_refused():
    with pytest.raises(RecipeError, match=r"Signs gives several classes the name stop, .* rename them"):
        Classification().bind(Signs(class_names=("stop", "yield", "stop")))


def test_weights_of_classes_multiply():
    scores, target = torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 2])
    first, second = torch.tensor([1.0, 3.0, 1.0]), torch.tensor([2.0, 2.0, 1.0])
    task = Classification().bind(Signs())
    twice, once = task.weighted(first).weighted(second), task.weighted(first * second)
    assert twice.loss(scores, target).item() == pytest.approx(once.loss(scores, target).item(), rel=1e-6)
    assert twice.loss(scores, target).item() != pytest.approx(task.weighted(second).loss(scores, target).item())
