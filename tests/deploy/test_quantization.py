"""INT8 by the backends' own tools: what the file computes, what is refused, and INT8 as a target."""

import onnx
import pytest
import torch
from deployed_networks import Segmenter

import prunus
from prunus import backends
from prunus.deploy import (
    BenchmarkSettings,
    Quantize,
    Target,
    TargetMeter,
    benchmark,
    check_parity,
    export_onnx,
    latency_meter,
    quantize,
)
from prunus.deploy.kit import write_kit
from prunus.deploy.latency_table import table_key
from prunus.deploy.quantization import calibration_indices
from prunus.errors import BudgetError, DeployError, RecipeError

ABLE = [name for name, one in backends.BACKENDS.items() if "int8" in one.precisions]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    torch.manual_seed(0)
    model = Segmenter(width=32).eval()
    return model, export_onnx(model, torch.randn(2, 3, 16, 32), tmp_path_factory.mktemp("float32") / "network.onnx")


def batches(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, 3, 16, 32, generator=generator) for _ in range(8)]


def able(name):
    backend = backends.find(name)
    if (reason := backend.absence() or backend.quantizer_absence()) is not None:
        pytest.skip(reason)
    return backend


@pytest.mark.filterwarnings("ignore")  # of the tools' own code
@pytest.mark.parametrize("name", ABLE)
def test_the_file_computes_in_int8_what_the_network_computes(exported, tmp_path, name):
    model, source = exported
    output = tmp_path / f"int8{able(name).int8_suffix}"
    assert quantize(source, output, batches(), backend=name) == output
    record = check_parity(model, output, batches(), backend=name)
    assert not record.passed  # rounded to 8 bits
    assert record.argmax_agreement > 0.9
    given = batches()[0]
    with backends.find(name).load(output, [tuple(given.shape)], 1) as session, torch.no_grad():
        (found,) = session.run([given.numpy()]).values()
        expected = model(given)
    assert (torch.from_numpy(found) - expected).norm() < 0.05 * expected.norm()
    assert not list(tmp_path.glob(".*"))


def test_weights_are_int8_per_channel_and_the_file_smaller(exported, tmp_path):
    _, source = exported
    first, second = (quantize(source, tmp_path / f"{number}.onnx", batches()) for number in range(2))
    assert first.read_bytes() == second.read_bytes()
    graph = onnx.load(first).graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    quantised = [node for node in graph.node if node.op_type == "DequantizeLinear" and node.input[0] in tensors]
    kernels = [tensors[node.input[0]] for node in quantised if len(tensors[node.input[0]].dims) == 4]
    assert len(kernels) == 3 and all(kernel.data_type == onnx.TensorProto.INT8 for kernel in kernels)
    scales = [tensors[node.input[1]] for node in quantised if len(tensors[node.input[0]].dims) == 4]
    assert all(scale.dims and scale.dims[0] > 1 for scale in scales)
    small, large = (sum(each.ByteSize() for each in onnx.load(path).graph.initializer) for path in (first, source))
    assert small < 0.6 * large


def test_what_cannot_be_quantised_is_refused(exported, tmp_path):
    _, source = exported
    with pytest.raises(DeployError, match="torch does not support INT8: quantise for onnxruntime"):
        quantize(source, tmp_path / "int8.onnx", batches(), backend="torch")
    with pytest.raises(DeployError, match="no samples to calibrate with"):
        quantize(source, tmp_path / "int8.onnx", [])
    with pytest.raises(DeployError, match=r"end in \.onnx; name it so"):
        quantize(source, tmp_path / "int8.xml", batches())
    with pytest.raises(DeployError, match="does not exist"):
        quantize(tmp_path / "absent.onnx", tmp_path / "int8.onnx", batches())
    with pytest.raises(DeployError, match=r"quantising .* failed"):
        quantize(source, tmp_path / "int8.onnx", [torch.randn(2, 3, 16)])
    assert not list(tmp_path.iterdir())


def test_an_absent_tool_is_named_with_how_to_install_it(exported, tmp_path, monkeypatch):
    monkeypatch.setattr(backends.BACKENDS["openvino"].__class__, "absence", lambda self: None)
    monkeypatch.setitem(__import__("sys").modules, "nncf", None)
    with pytest.raises(DeployError, match=r"nncf cannot be imported .*prunus\[openvino,int8\]"):
        quantize(exported[1], tmp_path / "int8.xml", batches(), backend="openvino")
    with pytest.raises(DeployError, match=r"prunus\[openvino,int8\]"):
        Target(backend="openvino", precision="int8").require()


@pytest.mark.parametrize("settings", [{"samples": 0}, {"max_drop": -1}, {"max_drop": float("nan")}, {"backends": ()}])
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(RecipeError, match="quantize"):
        Quantize(**settings)


def test_the_same_seed_calibrates_with_the_same_samples():
    assert calibration_indices(100, 10, 3) == calibration_indices(100, 10, 3) != calibration_indices(100, 10, 4)
    assert calibration_indices(5, 10, 0) == [0, 1, 2, 3, 4]


def test_int8_is_a_target_that_a_meter_measures(exported, monkeypatch):
    model, _ = exported
    assert table_key(Target(precision="int8"))["precision"] == "int8"
    with pytest.raises(RecipeError, match="torch does not support precision 'int8'"):
        Target(backend="torch", precision="int8")
    loaded, load = [], backends.BACKENDS["onnxruntime"].__class__.load

    def seen(self, network, shapes, threads):
        loaded.append({node.op_type for node in onnx.load(network).graph.node})
        return load(self, network, shapes, threads)

    monkeypatch.setattr(backends.BACKENDS["onnxruntime"].__class__, "load", seen)
    meter = TargetMeter(Target(precision="int8"), torch.randn(1, 3, 16, 32), warmup=1, repeats=3)
    assert meter(model) > 0
    assert len(loaded) == 2 and all("QuantizeLinear" in kinds for kinds in loaded)


def test_a_kit_for_another_machine_is_refused_in_int8(exported, tmp_path):
    images = torch.randn(1, 3, 16, 32)
    groups = prunus.trace(exported[0], images)
    with pytest.raises(DeployError, match="a kit is measured in fp32, and onnxruntime,precision=int8 is not"):
        write_kit(tmp_path / "kit", exported[0], groups, (images,), Target(precision="int8"))
    assert not (tmp_path / "kit").exists()


def test_files_are_timed_in_int8_where_the_target_says_so(exported):
    settings = BenchmarkSettings(
        backends=(), targets=(Target(precision="int8"), Target()), repeats=2, warmup=0, measure_memory=False
    )
    records = benchmark({"network": exported[1]}, (3, 16, 32), settings)
    assert [record.precision for record in records] == ["int8", "float32"]


def test_a_budget_is_solved_in_int8_milliseconds(exported, monkeypatch):
    model, _ = exported
    images = torch.randn(1, 3, 16, 32)
    groups = prunus.trace(model, images)
    paths, quantised = [], latency_meter.quantize
    monkeypatch.setattr(
        latency_meter, "quantize", lambda path, *rest, **more: paths.append(path) or quantised(path, *rest, **more)
    )
    meter = TargetMeter(Target(precision="int8"), images, warmup=1, repeats=5)
    try:  # the machine may be busy: what is tested is that INT8 files are timed
        plan = prunus.select(model, groups, budget=prunus.Budget(latency=0.9), meter=meter)
    except BudgetError as error:
        assert "smallest network takes" in str(error)
    else:
        assert meter.reached is not None
        assert prunus.trace(prunus.apply(plan, model), images).macs() < groups.macs()
    assert len(paths) > 2
