"""Several tasks of one network: loss, metrics, decoding, parity, protection, and what is refused."""

import collections
import dataclasses

import pytest
import torch
from torch import nn

from prunus.boxes import Objects
from prunus.data import StreetData, StreetMultiTaskData
from prunus.errors import RecipeError, TrainingError
from prunus.gate import Protect, compare
from prunus.models.multi_task_net import MultiTaskNet
from prunus.tasks.classification import Classification
from prunus.tasks.coco_metric import COCOMetric
from prunus.tasks.detection import Detection
from prunus.tasks.distillation import Distillation
from prunus.tasks.multi_task import MultiTask, SubTask
from prunus.tasks.segmentation import Segmentation

DATA = StreetMultiTaskData(size=(32, 64), num_train=6, num_validation=2, num_test=10)
MASKS, BOXES = Segmentation(), Detection(most=10, metric=COCOMetric(main="map50"))
Pair = collections.namedtuple("Pair", ["segmentation", "detection"])


def settings(weight=0.5, **changes):
    tasks = {"segmentation": SubTask(task=MASKS), "detection": SubTask(task=BOXES, weight=weight)}
    return MultiTask(**{"tasks": tasks, **changes})


def network(seed=0):
    torch.manual_seed(seed)
    return MultiTaskNet(num_classes=DATA.num_classes, widths=(8, 16, 16), neck=8)


def batch(number=3):
    split = DATA.test()
    samples = [split[index] for index in range(number)]
    targets = {name: torch.stack([target[name] for _, target in samples]) for name in samples[0][1]}
    return torch.stack([image for image, _ in samples]), targets


def parts():
    """The two tasks alone, bound to the same scenes."""
    own = DATA.by_task()
    return {"segmentation": MASKS.bind(own["segmentation"]), "detection": BOXES.bind(own["detection"])}


def test_the_loss_is_the_weighted_sum():
    task, (images, targets), alone = settings(0.25).bind(DATA), batch(), parts()
    output = network()(images)
    wanted = alone["segmentation"].loss(output["segmentation"], targets["segmentation"])
    wanted = wanted + 0.25 * alone["detection"].loss(output["detection"], targets["detection"])
    for each in (output, Pair(**output), {**output, "more": images}):
        torch.testing.assert_close(task.loss(each, targets), wanted)
        torch.testing.assert_close(task.training_loss(images, each, targets), wanted)


def test_an_entry_may_be_called_otherwise_and_a_files_outputs_are_flat():
    images, targets = batch()
    output, plain = network()(images), settings().bind(DATA)
    tasks = {**settings().tasks, "segmentation": SubTask(task=MASKS, output="seg")}
    named = MultiTask(tasks=tasks).bind(DATA)
    renamed = {"seg": output["segmentation"], "detection": output["detection"]}
    assert named.loss(renamed, targets) == plain.loss(output, targets)
    flat = {"segmentation": output["segmentation"], **{f"detection_{k}": v for k, v in output["detection"].items()}}
    assert plain.loss(flat, targets) == plain.loss(output, targets)


def test_metrics_are_those_of_each_task_under_its_name():
    images, targets = batch(10)
    output, task = network()(images), settings().bind(DATA)
    metric = task.metrics()
    metric.update(output, targets)
    metrics, per_class = metric.compute()
    for name, alone in parts().items():
        own = alone.metrics()
        own.update(output[name], targets[name])
        values, classes = own.compute()
        assert {f"{name}.{key}": value for key, value in values.items()}.items() <= metrics.items()
        assert {f"{name}: {key}": value for key, value in classes.items()}.items() <= per_class.items()
    assert list(per_class) == list(DATA.class_names)
    assert metrics["mean"] == pytest.approx((metrics["segmentation.miou"] + metrics["detection.map50"]) / 2)
    assert task.main_metric == next(iter(metrics)) == "mean"
    headline = settings(main="detection").bind(DATA)
    metric = headline.metrics()
    metric.update(output, targets)
    assert next(iter(metric.compute()[0])) == headline.main_metric == "detection.map50"


def test_a_teacher_is_imitated_in_every_task():
    images, targets = batch()
    student, teacher, task = network(), network(1), settings(0.25).bind(DATA)
    output, answer = student(images), teacher.eval()(images)
    distances = {name: each.imitation(output[name], answer[name], 4.0) for name, each in parts().items()}
    taught = Distillation(weight=1.0).wrap(task, teacher).training_loss(images, output, targets)
    torch.testing.assert_close(taught, distances["segmentation"] + 0.25 * distances["detection"])


def test_only_what_decodes_is_decoded():
    images, _ = batch()
    model, task = network().eval(), settings().bind(DATA)
    with torch.no_grad():
        decoded, answers = task.deployed(model)(images), task.predict(model(images))
    assert torch.equal(decoded["detection"], answers["detection"])
    assert torch.equal(decoded["segmentation"].argmax(1), answers["segmentation"])
    masks = MultiTask(tasks={"segmentation": SubTask(task=MASKS)}).bind(DATA)
    with pytest.raises(RecipeError, match=r"deploy\.decode"):
        masks.deployed(model)


def test_outputs_are_compared_task_by_task():
    images, _ = batch(1)
    task, model = settings().bind(DATA), network().eval()
    with torch.no_grad():
        output = task.deployed(model)(images)
    rows = output["detection"].clone()
    rows[0, [0, 1]] = rows[0, [1, 0]]  # equal scores may change places
    other = {"segmentation": output["segmentation"].clone(), "detection": rows}
    first, second = task.comparable(output, other)
    assert list(first) == ["segmentation", "detection"] and torch.equal(first["detection"], second["detection"])
    pixels = output["segmentation"][:, 0].numel()
    same, number = task.agreement(output, other)
    assert same == number >= pixels
    other["segmentation"][0, :, 0, 0] = -output["segmentation"][0, :, 0, 0]
    assert task.agreement(output, other) == (number - 1, number)


def test_a_class_is_protected_in_one_task_or_in_all():
    task = settings().bind(DATA)
    both = Protect(classes=("pedestrian",)).task(task, DATA.class_names)
    one = Protect(classes=("detection: pedestrian",)).task(task, DATA.class_names)
    number = StreetData.class_names.index("pedestrian")
    own, plain = (each.tasks["segmentation"].class_weights[number] for each in (both, task))
    assert own == 4 * plain and one.tasks["segmentation"] is task.tasks["segmentation"]
    for each in (both, one):
        assert each.tasks["detection"].heads.class_weights.tolist() == [1, 4, 1]
    with pytest.raises(RecipeError, match=r"names dog"):
        Protect(classes=("dog",)).task(task, DATA.class_names)


def test_the_picture_shows_every_answer():
    task, (_, target) = settings().bind(DATA), DATA.test()[0]
    picture = DATA.test().picture(0)
    shown = task.draw_on(picture, target)
    assert shown.shape == (3, 64, 64)
    alone = parts()
    assert torch.equal(shown[:, :32], alone["segmentation"].draw_on(picture, target["segmentation"]))
    assert torch.equal(shown[:, 32:], alone["detection"].draw_on(picture, target["detection"]))


def test_slices_are_judged_task_by_task():
    wide, narrow = network(), network(1)
    found = compare(wide, narrow, DATA, task=settings(), max_drop=0.5)
    alone = {
        name: compare(Entry(wide, name), Entry(narrow, name), DATA.by_task()[name], task=settings().tasks[name].task)
        for name in DATA.by_task()
    }
    assert found.metric == "segmentation.miou, detection.map50"
    values = {each.name: (each.wide, each.narrow, each.low, each.high) for each in found.slices}
    for name, own in alone.items():
        assert found.calibrations[name] == own.calibration
        for each in own.slices:
            assert values[f"{name}: {each.name}"] == (each.wide, each.narrow, each.low, each.high)
    assert len(values) == sum(len(own.slices) for own in alone.values())
    apart = [sum(pair) / 2 for pair in zip(*(own.disagreement for own in alone.values()), strict=True)]
    assert found.disagreement == pytest.approx(apart)
    assert compare(wide, wide, DATA).passed  # the data say which tasks


class Entry(nn.Module):
    """One entry of what a network returns."""

    def __init__(self, model, name):
        super().__init__()
        self.model, self.name = model, name

    def forward(self, images):
        return self.model(images)[self.name]


def test_what_does_not_fit_is_refused():
    with pytest.raises(RecipeError, match=r"task\.tasks names no sub-task"):
        MultiTask(tasks={})
    with pytest.raises(RecipeError, match=r"task\.main is 'depth'; the sub-tasks are segmentation, detection"):
        settings(main="depth")
    with pytest.raises(RecipeError, match=r"weight is above zero, and finite, not 0"):
        SubTask(task=MASKS, weight=0)
    with pytest.raises(RecipeError, match=r"a sub-task is one task"):
        SubTask(task=settings())
    with pytest.raises(RecipeError, match=r"'a\.b' is not a name for a sub-task"):
        MultiTask(tasks={"a.b": SubTask(task=MASKS)})
    with pytest.raises(RecipeError, match=r"outputs of a_b could not be distinguished from those of a"):
        MultiTask(tasks={"a": SubTask(task=MASKS), "a_b": SubTask(task=MASKS)})
    depth = MultiTask(tasks={**settings().tasks, "depth": SubTask(task=Classification())})
    with pytest.raises(RecipeError, match=r"the sub-task depth, and StreetMultiTaskData gives targets for segment"):
        depth.bind(DATA)
    with pytest.raises(RecipeError, match=r"task\.tasks\.detection: Segmentation needs masks.*gives boxes"):
        MultiTask(tasks={"detection": SubTask(task=MASKS)}).bind(DATA)
    with pytest.raises(RecipeError, match=r"MultiTask needs a target for each sub-task, and StreetData gives masks"):
        settings().bind(DATA.by_task()["segmentation"])
    with pytest.raises(RecipeError, match=r"Segmentation needs masks, .*prunus\.tasks\.multi_task\.MultiTask"):
        MASKS.bind(DATA)


def test_an_output_or_a_target_that_is_missing_is_named():
    task, (images, targets) = settings().bind(DATA), batch()
    output = network()(images)
    with pytest.raises(TrainingError, match=r"a dict with segmentation, .* detection reads the entry 'detection'"):
        task.loss({"segmentation": output["segmentation"]}, targets)
    with pytest.raises(TrainingError, match=r"a Tensor without entries.*task\.tasks\.segmentation\.output"):
        task.loss(output["segmentation"], targets)
    with pytest.raises(TrainingError, match=r"target has segmentation, and the sub-task detection needs an entry"):
        task.loss(output, {"segmentation": targets["segmentation"]})
    with pytest.raises(TrainingError, match=r"target is one tensor"):
        task.loss(output, targets["segmentation"])
    for name, alone in parts().items():  # a task alone takes no dictionary
        for use in (alone.loss, alone.metrics().update):
            with pytest.raises(TrainingError, match=r"a batch's target is dict, and must be"):
                use(output[name], targets)


@dataclasses.dataclass(frozen=True)
class Views:
    """A source of the user's own: where the boxes are, and what is seen as a whole."""

    targets: str = "several"
    class_names: tuple[str, ...] = ("scene: town", "scene: land", "objects: car")

    def by_task(self):
        return {"scene": Scene(), "objects": DATA.by_task()["detection"]}


@dataclasses.dataclass(frozen=True)
class Scene:
    targets: str = "labels"
    class_names: tuple[str, ...] = ("town", "land")


def test_any_tasks_are_combined():
    tasks = {"scene": SubTask(task=Classification()), "objects": SubTask(task=Detection(most=5))}
    task = MultiTask(tasks=tasks, main="scene").bind(Views())
    assert task.main_metric == "scene.top1"
    heads = {"heat": torch.zeros(2, 3, 8, 16), "sides": torch.zeros(2, 4, 8, 16)}
    output = {"scene": torch.tensor([[2.0, 0.0], [0.0, 2.0]]), "objects": heads}
    box = Objects.of(torch.tensor([[8.0, 8, 20, 28]]), torch.tensor([1])).rows(1)
    target = {"scene": torch.tensor([0, 0]), "objects": torch.stack([box, box])}
    metric = task.metrics()
    metric.update(output, target)
    assert metric.compute()[0]["scene.top1"] == 0.5
    assert task.draw_on(torch.zeros(3, 32, 64, dtype=torch.uint8), {"scene": target["scene"][0], "objects": box}).shape[
        1:
    ] == (96 + 32, 192)
