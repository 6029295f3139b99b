"""Networks and their files, exported once: an export takes seconds."""

from pathlib import Path

import pytest
import torch
from deployed_networks import Fusion, Segmenter, seeded
from torch import nn

from prunus.deploy import export_onnx


@pytest.fixture(scope="session")
def segmenter() -> nn.Module:
    return seeded(Segmenter)


@pytest.fixture(scope="session")
def fusion() -> nn.Module:
    return seeded(Fusion)


@pytest.fixture(scope="session")
def segmenter_file(segmenter: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Exported from a single image: the batch must be open all the same."""
    return export_onnx(segmenter, torch.rand(1, 3, 16, 32), tmp_path_factory.mktemp("onnx") / "segmenter.onnx")


@pytest.fixture(scope="session")
def fusion_file(fusion: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    inputs = (torch.rand(2, 3, 16, 32), torch.rand(2, 1, 16, 32))
    return export_onnx(fusion, inputs, tmp_path_factory.mktemp("onnx") / "fusion.onnx")
