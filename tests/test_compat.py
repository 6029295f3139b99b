"""Torchvision imports and suppresses boxes beside any torch."""

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prunus import compat


def brute_force(boxes, scores, threshold):
    """Greedy suppression, pair by pair, in plain Python."""
    kept = []
    for i in sorted(range(len(boxes)), key=lambda i: (-scores[i], i)):
        if all(iou(boxes[i], boxes[j]) <= threshold for j in kept):
            kept.append(i)
    return kept


def iou(a, b):
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    intersection = width * height
    return intersection / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - intersection)


coordinate = st.integers(0, 20)
box = st.tuples(coordinate, coordinate, st.integers(1, 12), st.integers(1, 12))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(box, st.integers(0, 5)), max_size=25), st.sampled_from([0.0, 0.3, 0.55, 0.9]))
def test_nms_is_greedy_suppression(items, threshold):
    boxes = [(x, y, x + w, y + h) for (x, y, w, h), _ in items]
    scores = [score for _, score in items]
    tensor = torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4)
    kept = compat.nms(tensor, torch.tensor(scores, dtype=torch.float64), threshold)
    assert kept.dtype == torch.int64
    assert kept.tolist() == brute_force(boxes, scores, threshold)


def test_nms_keeps_order_of_scores_and_a_degenerate_box():
    boxes = torch.tensor([[0, 0, 10, 10], [1, 1, 11, 11], [5, 5, 5, 5], [30, 30, 40, 40]])
    kept = compat.nms(boxes, torch.tensor([0.5, 0.9, 0.1, 0.7]), 0.5)
    assert kept.tolist() == [1, 3, 2]


def test_nms_refuses_other_shapes():
    with pytest.raises(ValueError, match=r"boxes \[N, 4\]"):
        compat.nms(torch.zeros(3, 5), torch.zeros(3), 0.5)


def test_torchvision_suppresses_per_class():
    ops = compat.torchvision.ops
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 10]])
    scores = torch.tensor([0.9, 0.8, 0.7])
    assert ops.nms(boxes, scores, 0.5).tolist() == [0]
    assert ops.batched_nms(boxes, scores, torch.tensor([0, 0, 1]), 0.5).tolist() == [0, 2]


@pytest.mark.filterwarnings("ignore:`create_unbacked_symint`:FutureWarning")  # torchvision's own
def test_exported_nms_stays_one_operator():
    class Suppress(torch.nn.Module):
        def forward(self, boxes, scores):
            return compat.torchvision.ops.nms(boxes, scores, 0.5)

    program = torch.export.export(Suppress(), (torch.rand(5, 4), torch.rand(5)))
    assert any("nms" in str(node.target) for node in program.graph.nodes)


def test_later_imports_work_with_warnings_as_errors():
    code = (
        "import prunus.compat as c, timm, torchmetrics, torchvision;"
        "assert c.torchvision is torchvision;"
        "torchvision.models.resnet18(); c.transforms.Resize(4);"
        "print(c.declared)"
    )
    command = [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == str(not compat.operators_load())


def test_torchvision_imported_before_is_left_alone(tmp_path):
    stub = tmp_path / "torchvision"
    stub.mkdir()
    (stub / "__init__.py").write_text("MARK = 1\n")
    (stub / "tv_tensors.py").write_text("")
    (stub / "transforms").mkdir()
    (stub / "transforms" / "__init__.py").write_text("")
    (stub / "transforms" / "v2.py").write_text("")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import torchvision, prunus.compat as c;"
        "assert c.torchvision.MARK == 1 and not c.declared"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
