import contextlib
import dataclasses
import fcntl
import logging
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from deployed_networks import Branching, FrozenBatch, NoOnnx, Segmenter, seeded
from onnx import numpy_helper
from torch import Tensor, nn

from prunus.backends.signature import named_outputs
from prunus.deploy import check_parity, export_onnx, latency_ms
from prunus.deploy.export import publish
from prunus.errors import DeployError
from prunus.writing import folder_aside

IMAGE = torch.rand(2, 3, 8, 8)


def _listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _names_and_shapes(values):
    return [
        (value.name, [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim])
        for value in values
    ]


def test_names_and_open_batch_of_a_single_input_and_output(segmenter_file):
    graph = onnx.load(segmenter_file).graph
    assert _names_and_shapes(graph.input) == [("input", ["batch", 3, 16, 32])]
    assert _names_and_shapes(graph.output) == [("output", ["batch", 5, 16, 32])]


def test_names_of_several_inputs_and_of_a_dictionary_of_outputs(fusion_file):
    graph = onnx.load(fusion_file).graph
    assert _names_and_shapes(graph.input) == [
        ("image", ["batch", 3, 16, 32]),
        ("depth", ["batch", 1, 16, 32]),
    ]
    assert _names_and_shapes(graph.output) == [("mask", ["batch", 4, 16, 32]), ("edge", ["batch", 1, 8, 16])]


def test_weights_lie_in_the_one_file(segmenter_file, segmenter):
    assert _listing(segmenter_file.parent) == [segmenter_file.name]
    weights = {value.name: value for value in onnx.load(segmenter_file).graph.initializer}
    np.testing.assert_array_equal(numpy_helper.to_array(weights["up.weight"]), segmenter.up.weight.detach())


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_the_file_runs_at_any_batch_size_and_equals_pytorch(fusion_file, fusion, batch):
    image, depth = torch.rand(batch, 3, 16, 32), torch.rand(batch, 1, 16, 32)
    session = onnxruntime.InferenceSession(str(fusion_file))
    mask, edge = session.run(["mask", "edge"], {"image": image.numpy(), "depth": depth.numpy()})
    expected = {name: value.detach() for name, value in fusion(image, depth).items()}
    np.testing.assert_allclose(mask, expected["mask"], atol=1e-5)
    np.testing.assert_allclose(edge, expected["edge"], atol=1e-5)


def test_exports_in_evaluation_mode_and_restores_every_modes_own(tmp_path):
    model = seeded(Segmenter)
    model.norm.eval()  # as users do who freeze a BN layer
    state = {name: value.clone() for name, value in model.state_dict().items()}
    image = torch.rand(2, 3, 16, 32)
    path = export_onnx(model, image, tmp_path / "model.onnx", dynamic_batch=False)
    assert model.training and model.dropout.training and not model.norm.training
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    output = onnxruntime.InferenceSession(str(path)).run(None, {"input": image.numpy()})[0]
    np.testing.assert_allclose(output, model.eval()(image).detach(), atol=1e-5)


def test_modes_are_restored_when_the_export_fails(tmp_path):
    model = nn.Sequential(nn.Dropout(), Branching())
    with pytest.raises(DeployError):
        export_onnx(model, IMAGE, tmp_path / "model.onnx")
    assert model.training and model[0].training


def test_nothing_is_said_on_the_console(tmp_path, capfd, caplog):
    export_onnx(nn.Conv2d(3, 4, 3), torch.rand(1, 3, 8, 8), tmp_path / "quiet.onnx", opset=17)
    assert capfd.readouterr() == ("", "")
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert logging.root.manager.disable == logging.NOTSET
    assert onnx.load(tmp_path / "quiet.onnx").opset_import[0].version == 17


@pytest.mark.parametrize(
    ("model", "reason", "remedy"),
    [
        (FrozenBatch(), "keeps the example's batch size 2", "dynamic_batch=False"),
        (Branching(), "data-dependent", "must not branch on values"),
        (NoOnnx(), "No ONNX function found for .*svd", "Replace that operator"),
    ],
)
def test_what_cannot_be_exported_is_refused_with_the_cause_and_a_way_out(model, reason, remedy, tmp_path, capfd):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"of an earlier run")
    with pytest.raises(DeployError, match=reason) as caught:
        export_onnx(model, IMAGE, path)
    assert remedy in str(caught.value)
    assert "\x1b" not in str(caught.value) and "[96m" not in str(caught.value)
    assert path.read_bytes() == b"of an earlier run"
    assert _listing(tmp_path) == [path.name]
    assert capfd.readouterr() == ("", "")


def test_a_batch_that_forward_fixes_can_be_exported_as_such(tmp_path):
    path = export_onnx(FrozenBatch(), IMAGE, tmp_path / "model.onnx", dynamic_batch=False)
    graph = onnx.load(path).graph
    assert _names_and_shapes(graph.input) == [("input", [2, 3, 8, 8])]
    assert _names_and_shapes(graph.output) == [("output", [2, 192])]


class Echo(nn.Module):
    """Returns what it is told to, made from its input."""

    def __init__(self, returns) -> None:
        super().__init__()
        self.returns = returns

    def forward(self, image: Tensor):
        return self.returns(image)


def test_nested_outputs_and_names_of_the_users_own(tmp_path):
    model = Echo(lambda image: {"z": image + 1, "heads": (image * 2, [image * 3])})
    assert list(named_outputs(model(IMAGE))) == ["z", "heads_0", "heads_1_0"]
    path = export_onnx(model, IMAGE, tmp_path / "model.onnx", input_names=["rgb"], output_names=["one", "two", "three"])
    outputs = onnxruntime.InferenceSession(str(path)).run(["one", "two", "three"], {"rgb": IMAGE.numpy()})
    for factor, output in zip((IMAGE + 1, IMAGE * 2, IMAGE * 3), outputs, strict=True):
        np.testing.assert_allclose(output, factor, rtol=1e-6)


@pytest.mark.parametrize(
    ("returns", "message"),
    [
        (lambda image: {"a": image, "b": 3}, r"returns a int \(as b\)"),
        (lambda image: None, "returns a NoneType"),
        (lambda image: {"a": {"b": image}, "a_b": image}, "two outputs .* a_b"),
        (lambda image: {"input": image}, "several inputs or outputs would be called input"),
        (lambda image: image @ torch.zeros(3, 3), r"does not run on inputs \[2, 3, 8, 8\]"),
    ],
)
def test_outputs_that_no_file_can_have_are_refused(returns, message, tmp_path):
    with pytest.raises(DeployError, match=message):
        export_onnx(Echo(returns), IMAGE, tmp_path / "model.onnx")


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ((IMAGE, torch.rand(3, 1, 8, 8)), r"first dimensions are \[2, 3\].*dynamic_batch=False"),
        (torch.tensor(1.0), r"first dimensions are \[None\]"),
        ((IMAGE, 3), "input 1 is a int"),
        ((), "there are no inputs"),
    ],
)
def test_inputs_that_are_not_one_batch_of_tensors_are_refused(inputs, message, tmp_path):
    with pytest.raises(DeployError, match=message):
        export_onnx(Echo(lambda *images: images[0]), inputs, tmp_path / "model.onnx")


def test_the_number_of_names_must_fit(tmp_path):
    with pytest.raises(DeployError, match="1 inputs and 1 outputs"):
        export_onnx(Echo(lambda image: image), IMAGE, tmp_path / "model.onnx", output_names=["a", "b"])


def test_a_path_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DeployError, match=r"file/model\.onnx cannot be written"):
        export_onnx(nn.ReLU(), IMAGE, tmp_path / "file" / "model.onnx")


def test_a_full_disk_leaves_the_old_file_alone(tmp_path, monkeypatch):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"of an earlier run")

    def full(*_arguments, **_options) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch.onnx.ONNXProgram, "save", full)
    with pytest.raises(DeployError, match="No space left on device"):
        export_onnx(nn.ReLU(), IMAGE, path)
    assert path.read_bytes() == b"of an earlier run" and _listing(tmp_path) == [path.name]


HELD = """
import pathlib, sys, time
from prunus.writing import folder_aside
with folder_aside(pathlib.Path(sys.argv[1])) as folder:
    (folder / "half").write_text("half")
    print(folder, flush=True)
    time.sleep(60)
"""


def test_what_a_killed_export_left_is_removed_by_the_next_and_what_another_writes_is_not(tmp_path):
    path = tmp_path / "net.onnx"
    (tmp_path / ".net.onnx.mine.writing").write_text("no folder of an export")
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(subprocess.Popen([sys.executable, "-c", HELD, path], stdout=subprocess.PIPE, text=True))
            for _ in range(2)
        ]
        folders = [Path(process.stdout.readline().strip()) for process in processes]
        for folder in folders:
            os.utime(folder, (0, 0))
        processes[0].kill()
        processes[0].wait()
        export_onnx(nn.ReLU(), IMAGE, path)
        left = {each.name for each in tmp_path.iterdir()}
        processes[1].kill()
    assert left == {"net.onnx", ".net.onnx.mine.writing", folders[1].name}


def test_a_folder_that_another_looks_at_is_locked_all_the_same(tmp_path, monkeypatch):
    """Another process holds the lock of a folder that was just made for as long as it asks how old it is."""
    holders = []

    class Looked(tempfile.TemporaryDirectory):
        def __enter__(self):
            folder = super().__enter__()
            held = os.open(folder, os.O_RDONLY)
            fcntl.flock(held, fcntl.LOCK_EX)
            holders.append(threading.Timer(0.2, lambda: os.close(held)))
            holders[0].start()
            return folder

    monkeypatch.setattr(tempfile, "TemporaryDirectory", Looked)
    with folder_aside(tmp_path / "net.onnx") as folder:
        own = os.open(folder, os.O_RDONLY)
        holders[0].join()
        with pytest.raises(BlockingIOError):
            fcntl.flock(own, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(own)


def test_weights_beside_the_graph_are_moved_along(segmenter_file, segmenter, tmp_path):
    """What happens above 2 GB, on a small network."""
    aside = tmp_path / "aside"
    aside.mkdir()
    model = onnx.load(segmenter_file)
    onnx.save_model(
        model, aside / "large.onnx", save_as_external_data=True, location="large.onnx.data", size_threshold=0
    )
    publish(aside, tmp_path / "large.onnx")
    assert _listing(tmp_path) == ["aside", "large.onnx", "large.onnx.data"]
    assert not _listing(aside)
    image = torch.rand(1, 3, 16, 32)
    output = onnxruntime.InferenceSession(str(tmp_path / "large.onnx")).run(None, {"input": image.numpy()})[0]
    assert output.shape == (1, 5, 16, 32)
    assert (tmp_path / "large.onnx.data").stat().st_size > 2000


class Odd(nn.Module):
    """Returns what torch's exporter does not know."""

    @dataclasses.dataclass
    class Output:
        scores: torch.Tensor
        hidden: tuple = ()
        loss: torch.Tensor | None = None

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(3, 2)

    def forward(self, x):
        return self.Output(self.net(x), (x * 2, None))


def test_dataclasses_and_none_among_outputs(tmp_path):
    model, x = Odd(), torch.randn(3, 3)
    path = export_onnx(model, x, tmp_path / "odd.onnx")
    assert [value.name for value in onnx.load(path).graph.output] == ["scores", "hidden_0"]
    assert check_parity(model, path, x).passed


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: torch.jit.trace(nn.Linear(3, 2), torch.rand(1, 3)), "is TorchScript.*pass the network"),
        (lambda: nn.LazyLinear(2), "weight is lazy.*run the network once"),
        (lambda: nn.functional.relu, "takes a torch.nn.Module"),
    ],
)
def test_what_is_no_network_with_code_is_refused(model, message, tmp_path):
    with pytest.raises(DeployError, match=message):
        export_onnx(model(), torch.rand(2, 3), tmp_path / "net.onnx")


def test_a_type_that_numpy_does_not_know_is_refused(tmp_path):
    model, x = nn.Linear(3, 2).bfloat16(), torch.rand(2, 3, dtype=torch.bfloat16)
    path = export_onnx(model, x, tmp_path / "net.onnx")
    for call in (lambda: check_parity(model, path, x), lambda: latency_ms(model, x)):
        with pytest.raises(DeployError, match=r"input 0 is bfloat16, .*model\.float\(\)"):
            call()
