import math

import numpy as np
import onnx
import pytest
import torch
from deployed_networks import Segmenter, seeded
from onnx import numpy_helper
from torch import nn

from prunus.deploy import check_parity, export_onnx, require
from prunus.errors import DeployError, ParityError, RecipeError

BACKENDS = ["onnxruntime", "openvino"]


def _tampered(source, target, change):
    """Copy an ONNX file with `change` applied to the transposed convolution's weight."""
    model = onnx.load(source)
    (weight,) = [value for value in model.graph.initializer if value.name == "up.weight"]
    weight.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(weight)), weight.name))
    onnx.save(model, target)
    return target


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_export_equals_its_source_at_every_batch_size(segmenter, segmenter_file, backend):
    batches = [torch.randn(size, 3, 16, 32) for size in (3, 3, 1)]
    record = check_parity(segmenter, segmenter_file, batches, backend=backend)
    assert (record.model, record.backend, record.samples) == ("segmenter", backend, 7)
    assert record.passed and record.argmax_agreement == 1
    assert 0 < record.max_rel_diff < 1e-5
    require(record)


@pytest.mark.parametrize("backend", BACKENDS)
def test_several_inputs_and_outputs(fusion, fusion_file, backend):
    record = check_parity(fusion, fusion_file, (torch.randn(3, 3, 16, 32), torch.randn(3, 1, 16, 32)), backend=backend)
    assert record.passed and record.samples == 3


def test_the_source_is_run_in_evaluation_mode_and_given_back(segmenter_file):
    model = seeded(Segmenter)
    threads = torch.get_num_threads()
    assert check_parity(model, segmenter_file, torch.randn(2, 3, 16, 32), threads=2).passed
    assert model.training and model.dropout.training
    assert torch.get_num_threads() == threads
    assert int(model.norm.num_batches_tracked) == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_tampered_file_fails_by_as_much_as_it_was_tampered_with(segmenter, segmenter_file, tmp_path, backend):
    path = _tampered(segmenter_file, tmp_path / "tampered.onnx", lambda weight: weight * 1.01)
    record = check_parity(segmenter, path, torch.randn(2, 3, 16, 32), backend=backend)
    assert not record.passed
    assert 0.002 < record.max_rel_diff < 0.0101  # the bias is left, hence not 1 % everywhere
    with pytest.raises(ParityError, match=r"tampered on .* over 2 samples .*tolerance 1e-04"):
        require(record)


def test_another_networks_file_fails(segmenter, tmp_path):
    torch.manual_seed(1)
    other = Segmenter()
    image = torch.randn(2, 3, 16, 32)
    path = export_onnx(other, image, tmp_path / "other.onnx")
    record = check_parity(segmenter, path, image)
    assert not record.passed and record.argmax_agreement < 0.9


def test_a_difference_in_a_later_output_and_sample_is_found(fusion, fusion_file, tmp_path):
    """The maximum is over all outputs and batches, each output against its own magnitude."""
    model = onnx.load(fusion_file)
    (bias,) = [value for value in model.graph.initializer if value.name == "edge.bias"]
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.float32(0.5), bias.name))
    onnx.save(model, tmp_path / "edge.onnx")
    batches = [(torch.randn(1, 3, 16, 32), torch.randn(1, 1, 16, 32)) for _ in range(2)]
    record = check_parity(fusion, tmp_path / "edge.onnx", batches)
    with torch.no_grad():
        magnitude = max(float(fusion.eval()(*batch)["edge"].abs().max()) for batch in batches)
    assert record.max_abs_diff == pytest.approx(0.5, abs=1e-5)
    assert record.max_rel_diff == pytest.approx(0.5 / magnitude, rel=1e-4)


def test_not_a_number_is_never_equal(segmenter, segmenter_file, tmp_path):
    path = _tampered(segmenter_file, tmp_path / "nan.onnx", lambda weight: weight * np.float32("nan"))
    record = check_parity(segmenter, path, torch.randn(1, 3, 16, 32))
    assert not record.passed and math.isinf(record.max_rel_diff)


def test_zero_against_zero_is_equal_and_against_anything_is_not(segmenter_file, tmp_path):
    model = seeded(Segmenter)
    nn.init.zeros_(model.up.weight)
    nn.init.zeros_(model.up.bias)
    assert math.isinf(check_parity(model, segmenter_file, torch.randn(1, 3, 16, 32)).max_rel_diff)
    nothing = _tampered(segmenter_file, tmp_path / "zero.onnx", np.zeros_like)
    changed = onnx.load(nothing)
    (bias,) = [value for value in changed.graph.initializer if value.name == "up.bias"]
    bias.CopyFrom(numpy_helper.from_array(np.zeros(5, np.float32), bias.name))
    onnx.save(changed, nothing)
    record = check_parity(model, nothing, torch.randn(1, 3, 16, 32))
    assert record.passed and record.max_rel_diff == 0


def test_outputs_of_another_shape_or_number_are_another_network(fusion, segmenter_file, fusion_file, tmp_path):
    wider = seeded(Segmenter, num_classes=6)
    with pytest.raises(ParityError, match=r"'output' is \[1, 6, 16, 32\] in PyTorch and \[1, 5, 16, 32\]"):
        check_parity(wider, segmenter_file, torch.randn(1, 3, 16, 32))

    class OneOutput(nn.Module):
        def forward(self, image, depth):
            return fusion(image, depth)["mask"]

    with pytest.raises(ParityError, match=r"has 2 outputs \(mask, edge\), the network 1 \(output\)"):
        check_parity(OneOutput(), fusion_file, (torch.randn(1, 3, 16, 32), torch.randn(1, 1, 16, 32)))


@pytest.mark.parametrize("backend", BACKENDS)
def test_files_that_do_not_load_or_run_are_named(segmenter, segmenter_file, tmp_path, backend):
    image = torch.randn(1, 3, 16, 32)
    with pytest.raises(DeployError, match=r"gone\.onnx does not exist"):
        check_parity(segmenter, tmp_path / "gone.onnx", image, backend=backend)
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(segmenter_file.read_bytes()[:1000])
    with pytest.raises(DeployError, match=rf"loading {broken} in .* failed"):
        check_parity(segmenter, broken, image, backend=backend)
    with pytest.raises(DeployError, match=r"segmenter\.onnx in .* failed: .*32.*Export the network again"):
        check_parity(segmenter, segmenter_file, torch.randn(1, 3, 16, 48), backend=backend)


def test_what_cannot_be_compared_is_refused(segmenter, segmenter_file):
    with pytest.raises(DeployError, match="no samples"):
        check_parity(segmenter, segmenter_file, [])
    with pytest.raises(DeployError, match="batch 1 has an input without samples"):
        check_parity(segmenter, segmenter_file, torch.rand(0, 3, 16, 32))
    with pytest.raises(RecipeError, match="Did you mean 'openvino'"):
        check_parity(segmenter, segmenter_file, torch.rand(1, 3, 16, 32), backend="openvno")


def test_small_outputs_are_held_against_themselves(tmp_path):
    class Detects(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.scores = nn.Linear(3, 2)

        def forward(self, image):
            return {"boxes": image * 1000, "scores": self.scores(image) / 100}

    image, model = torch.randn(4, 3), Detects()
    path = export_onnx(model, image, tmp_path / "net.onnx")
    assert check_parity(model, path, image).passed
    with torch.no_grad():
        model.scores.weight *= 1.01
    record = check_parity(model, path, image)
    assert not record.passed and record.max_rel_diff > 1e-3 and record.max_abs_diff < 1e-3


def test_a_failure_says_that_the_code_asks_whether_it_is_exported(tmp_path):
    class Asks(nn.Module):
        def forward(self, image):
            return image * 2 if torch.onnx.is_in_onnx_export() else image * 3

    image = torch.rand(2, 3)
    record = check_parity(Asks(), export_onnx(Asks(), image, tmp_path / "net.onnx"), image)
    with pytest.raises(
        ParityError, match=r"checks whether it is being exported \(is_in_onnx_export, in .*test_parity\.py"
    ):
        require(record)


def test_a_failure_says_that_there_is_no_float64_reference(tmp_path):
    class Names(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(3, 2)

        def forward(self, image):
            return self.net(image.float())

    image, model = torch.rand(2, 3), Names()
    path = export_onnx(model, image, tmp_path / "net.onnx")
    with torch.no_grad():
        model.net.weight *= 2
    with pytest.raises(ParityError, match=r"no float64 reference, since the network does not run in float64 \(.*dtype"):
        require(check_parity(model, path, image))
