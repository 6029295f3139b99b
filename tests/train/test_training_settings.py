"""The regime: where it runs, what it can train."""

import pytest
import torch
from torch import nn

from prunus.errors import RecipeError, TrainingError
from prunus.train.settings import OptimizerSettings, Train


@pytest.mark.parametrize("device", ["meta", "cuda:99", "mps:7", "nonsense"])
def test_a_device_that_is_not_there_is_refused(device):
    with pytest.raises(RecipeError, match=rf"train\.device is '{device}'"):
        Train(device=device).torch_device()


def test_the_processor_is_always_there():
    assert Train(device="cpu").torch_device() == torch.device("cpu")
    assert Train().torch_device().type in ("cpu", "cuda")


def test_a_network_without_parameters_to_train_is_refused():
    with pytest.raises(TrainingError, match=r"Conv2d has no parameter to train: all are frozen"):
        OptimizerSettings().build(nn.Conv2d(1, 1, 1).requires_grad_(False))
    with pytest.raises(TrainingError, match=r"ReLU has no parameter to train: it has none at all"):
        OptimizerSettings().build(nn.ReLU())
