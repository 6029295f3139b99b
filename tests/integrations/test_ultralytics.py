"""`Shrink` in Ultralytics' own trainer, on road signs: average, optimizer, checkpoints, `val`, `export`, resume."""

import importlib.util
from pathlib import Path

import pytest
import torch

import prunus

ultralytics = pytest.importorskip("ultralytics")
from prunus.errors import TrainingError
from prunus.integrations.ultralytics import STATE, Shrink, plan_of_network

ROADSIGN = Path(__file__).parents[3] / "shared" / "data" / "roadsign_voc"
pytestmark = [
    pytest.mark.skipif(not ROADSIGN.is_dir(), reason="roadsign_voc is not here"),
    pytest.mark.filterwarnings("ignore"),
]
SETTINGS = {
    "imgsz": 64, "batch": 4, "nbs": 8, "device": "cpu", "amp": False, "workers": 0, "plots": False, "verbose": False,
    "seed": 0, "close_mosaic": 1, "pretrained": False,
}  # fmt: skip
EPOCHS = 5


def converted(folder):
    path = Path(__file__).parents[2] / "benchmarks" / "roadsign_yolo.py"
    spec = importlib.util.spec_from_file_location("roadsign_yolo", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.yolo_set(ROADSIGN, folder, 16)


def shrink(**changes):
    return Shrink(**{"budget": prunus.Budget(macs=0.4), "begin": 0.2, "end": 0.6} | changes)


def macs(model):
    return prunus.trace(model.float(), torch.zeros(1, 3, 64, 64)).macs()


class Stopped(Exception):  # noqa: N818
    pass


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("signs")
    data = converted(folder / "set")
    yolo, shrinking, widths = ultralytics.YOLO("yolo11n.yaml"), shrink(), []
    yolo.add_callback("on_model_save", lambda trainer: widths.append(
        (sum(p.numel() for p in trainer.model.parameters()), trainer.best_fitness == trainer.fitness)))  # fmt: skip
    shrinking.train(yolo, data=str(data), epochs=EPOCHS, project=str(folder), name="run", **SETTINGS)
    return folder, data, yolo, shrinking, widths


def test_the_budget_is_met_and_average_optimizer_and_checkpoints_are_narrow(done):
    folder, _, yolo, shrinking, widths = done
    wide = macs(ultralytics.YOLO("yolo11n.yaml").model)
    trainer = yolo.trainer
    assert macs(trainer.model) <= 0.4 * wide
    sizes = [size for size, _ in widths]
    assert sizes[0] > sizes[-1] and sizes == sorted(sizes, reverse=True)
    shapes = {name: value.shape for name, value in trainer.model.state_dict().items()}
    assert {name: value.shape for name, value in trainer.ema.ema.state_dict().items()} == shapes
    held = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    assert {id(p) for p in trainer.model.parameters() if p.requires_grad} <= held
    for name in ("best", "last"):
        found = ultralytics.YOLO(folder / "run" / "weights" / f"{name}.pt").model
        assert {key: value.shape for key, value in found.state_dict().items()} == shapes
        assert plan_of_network(found) == shrinking.plan


def test_the_average_follows_the_network_after_a_cut(done):
    trainer = done[2].trainer
    before = {name: value.clone() for name, value in trainer.ema.ema.state_dict().items()}
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            parameter.add_(1.0)
    trainer.ema.update(trainer.model)
    moved = [not torch.equal(before[name], value) for name, value in trainer.ema.ema.named_parameters()]
    assert all(moved)


def test_the_best_network_is_one_of_the_final_width(done):
    _, _, yolo, _, widths = done
    assert widths[-1][0] < widths[0][0]
    assert any(best for size, best in widths if size == widths[-1][0])
    assert sum(p.numel() for p in yolo.model.parameters()) == widths[-1][0]


def test_val_and_export_and_the_way_back(done, tmp_path):
    folder, data, _, _, _ = done
    best = ultralytics.YOLO(folder / "run" / "weights" / "best.pt")
    found = best.val(data=str(data), imgsz=64, device="cpu", plots=False, verbose=False, workers=0)
    assert 0 <= found.box.map50 <= 1
    narrow = ultralytics.YOLO(folder / "run" / "weights" / "best.pt").model.float().eval()
    images = torch.rand(1, 3, 64, 64)
    expected = narrow(images)[0]
    exported = best.export(format="onnx", imgsz=64, simplify=False, device="cpu")
    session = __import__("onnxruntime").InferenceSession(exported)
    (scores,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    torch.testing.assert_close(torch.from_numpy(scores), expected, atol=1e-3, rtol=1e-3)

    plan = plan_of_network(narrow)
    prunus.save(tmp_path / "narrow", narrow, plan)
    build = lambda: type(narrow)("yolo11n.yaml", nc=4, verbose=False)  # noqa: E731
    loaded = prunus.load(tmp_path / "narrow", build).eval()
    torch.testing.assert_close(loaded(images)[0], expected)
    path = prunus.export_onnx(loaded, images, tmp_path / "narrow.onnx", dynamic_batch=False)
    assert prunus.check_parity(loaded, path, images).passed


def test_a_stopped_training_goes_on_from_its_own_last_checkpoint(done, tmp_path):
    _, data, _, _, widths = done
    yolo = ultralytics.YOLO("yolo11n.yaml")

    def stop(trainer):
        if trainer.epoch == 2:
            raise Stopped

    yolo.add_callback("on_train_epoch_start", stop)
    first = shrink()
    with pytest.raises(Stopped):
        first.train(yolo, data=str(data), epochs=EPOCHS, project=str(tmp_path), name="run", **SETTINGS)
    assert first.plan  # it has been cut already
    again, on = ultralytics.YOLO(tmp_path / "run" / "weights" / "last.pt"), shrink()
    began = []
    again.add_callback(
        "on_train_start", lambda trainer: began.append(sum(p.numel() for p in trainer.model.parameters()))
    )
    on.train(again, resume=True)
    assert began == [widths[1][0]]
    assert on.plan.edits[: len(first.plan.edits)] == first.plan.edits
    assert on.shrinker.clock.period == EPOCHS
    assert macs(again.model) == pytest.approx(macs(done[2].trainer.model), rel=0.05)


def test_a_narrow_network_can_be_trained_further(done, tmp_path):
    folder, data, _, shrinking, _ = done
    yolo, further = ultralytics.YOLO(folder / "run" / "weights" / "best.pt"), shrink(budget=prunus.Budget(macs=0.7))
    before = macs(yolo.model)
    further.train(yolo, data=str(data), epochs=2, project=str(tmp_path), name="run", **SETTINGS | {"pretrained": True})
    assert macs(yolo.model) <= 0.7 * before
    assert further.plan.edits[: len(shrinking.plan.edits)] == shrinking.plan.edits
    assert plan_of_network(yolo.model).edits[-1] == further.plan.edits[-1]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [({"device": [0, 1]}, "several GPUs"), ({"device": "0,1"}, "several GPUs"), ({"time": 0.1}, "time.*give epochs")],
)
def test_what_cannot_be_supported_is_refused_by_name(tmp_path, arguments, told):
    data = converted(tmp_path / "set")
    settings = SETTINGS | {"data": str(data), "epochs": 2, "project": str(tmp_path)} | arguments
    with pytest.raises(TrainingError, match=told):
        shrink().train(ultralytics.YOLO("yolo11n.yaml"), **settings)


def test_a_training_that_ends_early_says_that_the_budget_is_not_met(done, tmp_path):
    yolo = ultralytics.YOLO("yolo11n.yaml")
    yolo.add_callback("on_train_batch_end", lambda trainer: setattr(trainer, "stop", True))
    with pytest.warns(UserWarning, match="before the budget was reached"):
        shrink().train(yolo, data=str(done[1]), epochs=EPOCHS, project=str(tmp_path), name="run", **SETTINGS)
    assert hasattr(yolo.model, STATE)
