"""Protection: classes weigh more in the loss and in what is kept, conditions are drawn more often."""

import dataclasses

import pytest
import tiny
import torch
from torch import nn

import prunus
from prunus import pipeline, recipe
from prunus.boxes import Objects
from prunus.data import StreetBoxesData, StreetData
from prunus.errors import RecipeError
from prunus.gate import Protect
from prunus.penalties import taylor
from prunus.tasks.classification import Classification
from prunus.tasks.detection import Detection
from prunus.tasks.segmentation import Segmentation
from prunus.tasks.torchvision_heads import TorchvisionHeads

STREET = StreetData(size=(16, 32), num_train=20, num_validation=2, num_test=2)


@dataclasses.dataclass(frozen=True)
class Pair:
    class_names: tuple[str, ...] = ("common", "rare")
    targets: str = "labels"


class TwoWays(nn.Module):
    """Each class has a channel of its own: the first tells the common class, the second the rare one."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(2, 2), nn.Linear(2, 2)
        with torch.no_grad():
            self.body.weight.copy_(torch.eye(2))
            self.head.weight.copy_(2 * torch.eye(2))
            self.body.bias.zero_()
            self.head.bias.zero_()

    def forward(self, features):
        return self.head(torch.relu(self.body(features)))


def test_importance_follows_what_is_protected():
    features = torch.eye(2)[[0] * 9 + [1]]
    target = features.argmax(1)
    task, model = Classification().bind(Pair()), TwoWays()
    kept = {}
    heavier = Protect(classes=("rare",), weight=30).task(task, Pair.class_names)
    for name, chosen in (("plain", task), ("protected", heavier)):
        model.zero_grad()
        chosen.loss(model(features), target).backward()
        groups = prunus.trace(model, features)
        penalty = prunus.GroupLasso(strength=1.0).bind(model, groups)
        own = groups.layers == groups.layer_names.index("body")
        kept[name] = int(taylor(penalty.slices)[own].argmax())
    assert kept == {"plain": 0, "protected": 1}


def test_the_loss_of_a_protected_class_counts_more():
    scores, target = torch.zeros(2, 2), torch.tensor([0, 1])
    scores[1, 0] = 2.0  # the rare one is missed
    task = Classification().bind(Pair())
    each = nn.functional.cross_entropy(scores, target, reduction="none")
    protected = Protect(classes=("rare",), weight=3).task(task, Pair.class_names)
    assert protected.loss(scores, target).item() == pytest.approx((each[0] + 3 * each[1]).item() / 4)
    masks = Segmentation(class_weight_offset=None).bind(STREET)
    heavier = Protect(classes=("pedestrian",)).task(masks, STREET.class_names)
    number = STREET.class_names.index("pedestrian")
    assert heavier.class_weights[number] == 4 * masks.class_weights[number] and masks.class_weights[number] == 1


def test_the_heat_and_the_boxes_of_a_protected_class_count_more():
    data = StreetBoxesData(size=(32, 64), num_train=1, num_validation=1, num_test=1)
    task = Detection().bind(data)
    output = {"heat": torch.zeros(1, 3, 8, 16), "sides": torch.zeros(1, 4, 8, 16)}
    nothing = Objects.of(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)).rows(1)[None]
    protected = Protect(classes=("pedestrian",), weight=4).task(task, data.class_names)
    assert protected.loss(output, nothing).item() == pytest.approx(2 * task.loss(output, nothing).item())
    person = Objects.of(torch.tensor([[8.0, 8, 20, 28]]), torch.tensor([1])).rows(1)[None]
    assert protected.loss(output, person) > 1.5 * task.loss(output, person)
    assert protected.main_metric == task.main_metric


def test_images_of_a_protected_condition_are_drawn_more_often():
    split = Protect(conditions=("night",), weight=4).data(STREET).train()
    order = torch.cat([split.order(torch.Generator().manual_seed(seed)) for seed in range(100)])
    night = sum(split.conditions(int(index)) == ("night",) for index in order) / len(order)
    assert len(split.order(torch.Generator())) == 20 and night == pytest.approx(0.5, abs=0.04)  # 4 of 8, not 1 of 5
    assert len(STREET.train().order(torch.Generator()).unique()) == 20


def test_a_run_is_protected_in_its_stages_alone(tmp_path):
    path = tmp_path / "recipe.yaml"
    text = tiny.RECIPE.replace("epochs: 4", "epochs: 2")
    losses = {}
    for name, more in (("plain", ""), ("protected", "protect: {classes: [pedestrian], conditions: [night]}\n")):
        path.write_text(text + more)
        folder = pipeline.run(recipe.load(pipeline.Recipe, path, [f"output={tmp_path / name}"]))
        epochs = [record for record in prunus.records.read(folder) if record.kind == "epoch"]
        losses[name] = {(record.model, record.epoch): record.loss for record in epochs}
    same = {key for key, loss in losses["plain"].items() if losses["protected"][key] == loss}
    assert {model for model, _ in same} == {"wide"}


def test_what_cannot_be_protected_is_refused():
    with pytest.raises(RecipeError, match=r"protect needs classes or conditions"):
        Protect()
    with pytest.raises(RecipeError, match=r"protect\.weight is 1"):
        Protect(classes=("rare",), weight=1)
    task = Classification().bind(Pair())
    with pytest.raises(RecipeError, match=r"protect\.classes names dog; the data have common, rare"):
        Protect(classes=("dog",)).task(task, Pair.class_names)
    with pytest.raises(RecipeError, match=r"protect\.conditions names snow, and no training image has it"):
        Protect(conditions=("snow",)).data(STREET).train()
    data = StreetBoxesData(size=(64, 64), num_train=1, num_validation=1, num_test=1)
    boxes = Detection(heads=TorchvisionHeads()).bind(data)
    with pytest.raises(RecipeError, match=r"does not support class weights: remove protect\.classes"):
        Protect(classes=("car",)).task(boxes, data.class_names)
