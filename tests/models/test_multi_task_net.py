"""One encoder, two heads: shapes, training, shrinking, export."""

import pytest
import torch

import prunus
from prunus.backends.signature import named_outputs
from prunus.data import StreetMultiTaskData
from prunus.errors import RecipeError
from prunus.models.multi_task_net import MultiTaskNet
from prunus.tasks.detection import Detection
from prunus.tasks.multi_task import MultiTask, SubTask
from prunus.tasks.segmentation import Segmentation

DATA = StreetMultiTaskData(size=(32, 64), num_train=2, num_validation=2, num_test=2)
TASKS = {"segmentation": SubTask(task=Segmentation()), "detection": SubTask(task=Detection(most=10))}
IMAGES = torch.randn(2, 3, 32, 64, generator=torch.Generator().manual_seed(0))


def build(**settings):
    torch.manual_seed(0)
    return MultiTaskNet(**{"num_classes": DATA.num_classes, "widths": (8, 16, 24), "neck": 8, **settings})


@pytest.mark.parametrize("blocks", ["depthwise", "residual", "erfnet"])
def test_both_heads_read_one_encoder_and_its_channels_can_go(blocks):
    model = build(blocks=blocks).eval()
    shapes = {name: list(each.shape) for name, each in named_outputs(model(IMAGES)).items()}
    assert shapes == {
        "segmentation": [2, 11, 32, 64],
        "detection_heat": [2, 3, 8, 16],
        "detection_sides": [2, 4, 8, 16],
    }
    groups = prunus.trace(model, IMAGES)
    assert int((~groups.exact).sum()) == 3 + 11 + 3 + 4  # the image's and the heads' own channels
    record = prunus.check_removal(model, IMAGES, fraction=0.5, seed=0)
    assert record.passed and record.removed > 20
    small = prunus.apply(prunus.select(model, groups, budget=prunus.Budget(macs=0.4)), model)
    assert prunus.trace(small, IMAGES).macs() <= 0.4 * groups.macs()


def test_both_tasks_are_learned_together(tmp_path):
    model, task = build(), MultiTask(tasks=TASKS).bind(DATA)
    split = DATA.validation()
    samples = [split[index] for index in range(2)]
    images = torch.stack([image for image, _ in samples])
    targets = {name: torch.stack([target[name] for _, target in samples]) for name in TASKS}
    optimizer, losses = torch.optim.Adam(model.parameters(), lr=1e-2), []
    for _ in range(100):
        output = model(images)
        losses.append({name: task.by_task()[name].loss(output[name], targets[name]).item() for name in TASKS})
        loss = task.loss(output, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert all(losses[-1][name] < losses[0][name] / 2 for name in TASKS)
    file = prunus.export_onnx(task.deployed(model).eval(), images, tmp_path / "net.onnx")
    assert prunus.check_parity(task.deployed(model).eval(), file, images, decisions=task).passed


def test_settings_that_give_no_network_are_refused():
    with pytest.raises(RecipeError, match=r"segmentation and detection, and the data give classes for one task"):
        build(num_classes=3)
    with pytest.raises(RecipeError, match=r"give classes for segmentation, depth"):
        build(num_classes={"segmentation": 3, "depth": 1})
    with pytest.raises(RecipeError, match=r"multiples of 8"):
        build()(torch.zeros(1, 3, 36, 64))
