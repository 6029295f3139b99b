"""Detectors: shapes, training, shrinking, expanding, export with the decoding inside and outside, torchvision's too."""

import dataclasses

import pytest
import torch
from torch import nn

import prunus
from prunus.backends.signature import named_outputs
from prunus.boxes import Objects
from prunus.errors import RecipeError, TrainingError
from prunus.models.centre_detector import CentreDetector
from prunus.models.torchvision_detector import TorchvisionDetector
from prunus.tasks.decoding import agreement, aligned
from prunus.tasks.detection import Detection
from prunus.tasks.torchvision_heads import TorchvisionHeads


@dataclasses.dataclass(frozen=True)
class Signs:
    class_names: tuple[str, ...] = ("stop", "yield")
    targets: str = "boxes"
    size: tuple[int, int] = (64, 96)
    palette: tuple = ((255, 0, 0), (0, 0, 255))


SMALL = {"widths": (8, 16, 24), "neck": 8}
IMAGES = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
BOX = Objects.of(torch.tensor([[8.0, 8, 56, 52]]), torch.tensor([1]))
NONE = Objects.of(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
ROWS = torch.stack([BOX.rows(2), NONE.rows(2)])


def detector(**settings):
    torch.manual_seed(0)
    return CentreDetector(**{"num_classes": 2, **SMALL, **settings})


def learned(model, task, steps, rate=5e-3):
    """Train on the two images until the box is found."""
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    for _ in range(steps):
        loss = task.loss(model.train()(IMAGES), ROWS)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


@pytest.mark.parametrize("blocks", ["depthwise", "residual", "erfnet"])
def test_it_learns_and_its_channels_can_go(blocks):
    model, task = detector(blocks=blocks), Detection(most=5).bind(Signs())
    learned(model, task, 60)
    found = task.predict(model(IMAGES))
    best = found[0, 0]
    assert best[0] == 1 and best[5] > 0.5 and found[1, 0, 5] < 0.3
    torch.testing.assert_close(best[1:5], BOX.boxes[0], atol=6, rtol=0)
    groups = prunus.trace(model.eval(), IMAGES)
    assert int((~groups.exact).sum()) == 3 + 2 + 4  # the image's and the heads' own channels
    assert prunus.check_removal(model, IMAGES).passed


def test_it_expands_and_contracts_exactly():
    model = detector().eval()
    plan = prunus.expand(model, layers=["smooth.0", "heat.0"], rate=2, keep_function=True)
    wide = prunus.apply(plan, model)
    assert sum(p.numel() for p in wide.parameters()) > sum(p.numel() for p in model.parameters())
    narrow = prunus.apply(prunus.contract(wide), wide)
    for name, value in model(IMAGES).items():
        torch.testing.assert_close(narrow(IMAGES)[name], value, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("inside", [False, True])
def test_its_file_finds_the_same_boxes(inside, tmp_path):
    model, task = detector(), Detection(most=20).bind(Signs())
    learned(model, task, 20)
    exported = task.deployed(model).eval() if inside else model.eval()
    path = prunus.export_onnx(exported, IMAGES, tmp_path / "detector.onnx")
    record = prunus.check_parity(exported, path, IMAGES, decisions=task)
    assert record.passed and record.argmax_agreement == 1
    other = task.deployed(detector()).eval() if inside else detector().eval()
    assert not prunus.check_parity(other, path, IMAGES, decisions=task).passed


def test_the_order_of_equal_scores_does_not_matter_and_another_box_does():
    rows = torch.tensor(
        [[[0.0, 0, 0, 9, 9, 0.8], [1, 5, 5, 20, 20, 0.5], [0, 30, 0, 40, 9, 0.5], [0, 1, 1, 2, 2, 1e-5]]]
    )
    swapped = rows[:, [0, 2, 1, 3]].clone()
    swapped[0, 3] = torch.tensor([1.0, 50, 50, 60, 60, 2e-5])  # the last one is another, no better
    first, second = aligned(rows, swapped)
    torch.testing.assert_close(first, second)
    assert first[0, 2].tolist() == rows[0, 2].tolist() and not first[0, 3].any()
    assert agreement(rows, swapped, 0.3) == (6, 6)
    moved = rows.clone()
    moved[0, 1, 1:5] += 5
    assert agreement(rows, moved, 0.3) == (4, 6)
    first, second = aligned(rows, moved)
    assert not torch.equal(first, second)


def test_settings_and_images_that_do_not_fit_are_refused():
    with pytest.raises(RecipeError, match="three widths"):
        detector(widths=(8, 8))
    with pytest.raises(RecipeError, match="growing ones for erfnet"):
        detector(blocks="erfnet", widths=(8, 16, 16))
    with pytest.raises(RecipeError, match=r"multiples of 8; got 64 x 90"):
        detector()(torch.zeros(1, 3, 64, 90))


TORCHVISION = {
    "ssdlite320_mobilenet_v3_large": {},
    "retinanet_resnet50_fpn": {"trainable_backbone_layers": 5},
    "fcos_resnet50_fpn": {"trainable_backbone_layers": 5},
}


@pytest.mark.parametrize("function", TORCHVISION)
@pytest.mark.filterwarnings("ignore:Changing trainable_backbone_layers:UserWarning")
def test_torchvision_detectors_go_through_the_same_task(function):
    torch.manual_seed(0)
    settings = {"function": function, "arguments": TORCHVISION[function]}
    model = TorchvisionDetector(num_classes=2, **settings)
    task = Detection(heads=TorchvisionHeads(**settings), most=7).bind(Signs())
    output = model.train()(IMAGES)
    loss = task.training_loss(IMAGES, output, ROWS)
    loss.backward()
    assert 0 < loss.item() < 100
    assert all(parameter.grad is not None for parameter in model.head.parameters())
    assert task.predict(model.eval()(IMAGES)).shape == (2, 7, 6)
    assert task.imitation(output, output, 1.0).item() == 0
    with pytest.raises(RecipeError, match=r"deploy\.decode: .*suppression"):
        task.deployed(model)
    with pytest.raises(TrainingError, match="the task's heads"):
        task.loss(detector()(IMAGES), ROWS)


def test_ssdlite_is_cut_to_a_budget_and_trains_on():
    torch.manual_seed(0)
    model = TorchvisionDetector(num_classes=2).eval()
    groups = prunus.trace(model, IMAGES)
    assert int((~groups.exact).sum()) < 0.02 * len(groups)
    small = prunus.apply(prunus.select(model, groups, budget=prunus.Budget(macs=0.5)), model)
    assert prunus.trace(small, IMAGES).macs() <= 0.5 * groups.macs()
    task = Detection(heads=TorchvisionHeads(), most=5).bind(Signs())
    task.loss(small.train()(IMAGES), ROWS).backward()
    assert task.predict(small.eval()(IMAGES)).shape == (2, 5, 6)


def test_ssdlite_learns_a_box_and_counts_classes_without_the_background():
    torch.manual_seed(0)
    model, task = TorchvisionDetector(num_classes=2), Detection(heads=TorchvisionHeads(), most=5).bind(Signs())
    learned(model.train(), task, 25, rate=1e-3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
            module.reset_running_stats()
    with torch.no_grad():
        model.train()(IMAGES)
    found = task.predict(model.eval()(IMAGES))[0]
    assert found[0, 0] == 1 and found[0, 5] > 0.3
    torch.testing.assert_close(found[0, 1:5], BOX.boxes[0], atol=15, rtol=0)


def test_torchvision_loss_is_that_of_the_whole_detector():
    torch.manual_seed(0)
    whole = prunus.compat.detection_model("ssdlite320_mobilenet_v3_large", 2, {}).train()
    model = TorchvisionDetector(num_classes=2)
    model.load_state_dict({k: v for k, v in whole.state_dict().items() if k.startswith(("backbone", "head"))})
    whole.transform = _AsIs()
    targets = [{"boxes": each.boxes, "labels": each.labels + 1} for each in (BOX, NONE)]
    torch.manual_seed(1)
    expected = sum(whole(list(IMAGES), targets).values())
    task = Detection(heads=TorchvisionHeads()).bind(Signs())
    torch.manual_seed(1)
    torch.testing.assert_close(task.loss(model.train()(IMAGES), ROWS), expected)


class _AsIs(nn.Module):
    """torchvision's transform of images that are as they should be."""

    def forward(self, images, targets):
        sizes = [tuple(image.shape[-2:]) for image in images]
        return prunus.compat.torchvision.models.detection.image_list.ImageList(torch.stack(images), sizes), targets


def test_a_detector_of_two_stages_is_refused():
    with pytest.raises(
        RecipeError, match=r"model\.function: fasterrcnn_mobilenet_v3_large_fpn is not a one-stage detector"
    ):
        TorchvisionDetector(num_classes=2, function="fasterrcnn_mobilenet_v3_large_fpn")
    with pytest.raises(RecipeError, match=r"task\.heads\.function: torchvision\.models\.detection has no 'yolo'"):
        TorchvisionHeads(function="yolo").bind(2, (64, 96))


def test_outputs_are_named_by_their_keys():
    assert list(named_outputs(detector()(IMAGES))) == ["heat", "sides"]
