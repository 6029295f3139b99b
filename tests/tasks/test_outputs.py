"""Networks that return dictionaries, tuples and dataclasses: which tensor is the scores; losses of auxiliary heads."""

import collections
import dataclasses

import pytest
import torch
from torch import nn

from prunus.errors import RecipeError, TrainingError
from prunus.tasks.classification import BoundClassification
from prunus.tasks.distillation import Distillation, distillation_loss
from prunus.tasks.outputs import Reading, named_tensors_of
from prunus.tasks.segmentation import BoundSegmentation

Logits = collections.namedtuple("Logits", ["logits", "aux"])


@dataclasses.dataclass
class Output:
    logits: torch.Tensor
    hidden: tuple = ()


def scores(number: float) -> torch.Tensor:
    return torch.tensor([[number, 0.0, 1.0]])


def test_tensors_are_named_by_keys_fields_and_indices():
    nested = {"heads": [scores(1), {"box": scores(2)}], "logits": Logits(scores(3), None), 0: Output(scores(4))}
    assert list(named_tensors_of(nested)) == ["heads.0", "heads.1.box", "logits.logits", "0.logits"]
    assert list(named_tensors_of(scores(1))) == [""]


@pytest.mark.parametrize(
    "output", [scores(1), {"out": scores(1)}, (scores(1),), [[scores(1)]], Output(scores(1)), Logits(scores(1), None)]
)
def test_the_only_tensor_is_the_scores(output):
    assert torch.equal(Reading().scores(output), scores(1))


def test_a_name_chooses_among_several():
    for output, name in (
        ({"out": scores(1), "aux": scores(2)}, "out"),
        (Logits(scores(1), scores(2)), "logits"),
        (Output(scores(1), (scores(2),)), "logits"),
        ((scores(2), [scores(1)]), "1.0"),
        (scores(1), "out"),  # a network may return its scores alone once it is evaluated
    ):
        assert torch.equal(Reading(output=name).scores(output), scores(1))


@pytest.mark.parametrize(("output", "name"), [({"out": scores(1), "aux": scores(2)}, None), ({"a": scores(1)}, "out")])
def test_what_is_not_clear_is_refused_with_the_names(output, name):
    with pytest.raises(TrainingError, match=rf"the tensors {', '.join(output)}, .*task\.output"):
        Reading(output=name).scores(output)


def test_auxiliary_heads_count_while_training_alone():
    task = BoundClassification(class_names="abc", reading=Reading(output="out", auxiliary={"aux": 0.5}))
    target, output = torch.tensor([0]), {"out": scores(1), "aux": scores(2)}
    main, aux = task.loss(scores(1), target), task.loss(scores(2), target)
    torch.testing.assert_close(task.loss(output, target), main)
    torch.testing.assert_close(task.training_loss(scores(0), output, target), main + 0.5 * aux)
    with pytest.raises(TrainingError, match=r"reads 'aux'.*aux_loss"):
        task.training_loss(scores(0), {"out": scores(1)}, target)


@pytest.mark.parametrize("settings", [{"auxiliary": {"aux": 0.0}}, {"output": "aux", "auxiliary": {"aux": 1.0}}])
def test_settings_that_say_nothing_are_refused(settings):
    with pytest.raises(RecipeError, match=r"task\.auxiliary"):
        Reading(**settings)


class Both(nn.Module):
    """Two heads, in a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.out, self.aux = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 2, 1)

    def forward(self, x):
        return {"out": self.out(x), "aux": self.aux(x)}


def test_a_teacher_and_metrics_read_the_same_tensor():
    torch.manual_seed(0)
    task = BoundSegmentation(class_names="ab", reading=Reading(output="out", auxiliary={"aux": 0.4}))
    student, teacher, images = Both(), Both(), torch.randn(2, 3, 4, 4)
    target, output, answer = torch.randint(2, (2, 4, 4)), student(images), teacher(images)
    taught = Distillation(weight=0.25).wrap(task, teacher)
    wanted = 0.75 * (task.loss(output["out"], target) + 0.4 * task.loss(output["aux"], target))
    wanted = wanted + 0.25 * distillation_loss(output["out"], answer["out"])
    torch.testing.assert_close(taught.training_loss(images, output, target), wanted)
    assert torch.equal(task.predict(output), output["out"].argmax(1))
    metrics = task.metrics()
    metrics.update(output, task.predict(output))
    assert metrics.compute()[0]["pixel_accuracy"] == 1
