"""A network, data and recipes so small that a whole run takes seconds; named by dotted path in recipes."""

import dataclasses
from pathlib import Path

import torch
from torch import Tensor, nn

from prunus.budget import Budget
from prunus.budget.controller import Controller
from prunus.data import StreetData
from prunus.records import Recorder
from prunus.tasks.segmentation import Segmentation
from prunus.train.fit import TrainingJob
from prunus.train.settings import OptimizerSettings, Train


class TinySegmenter(nn.Module):
    """Strided conv, a residual block, dropout, transposed conv: what ERFNet is made of."""

    def __init__(self, *, num_classes: int, width: int = 16, encoder_only: bool = False) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, width, 3, stride=2, padding=1), nn.BatchNorm2d(width), nn.ReLU(), Residual(width)
        )
        self.decoder = (
            nn.Conv2d(width, num_classes, 1) if encoder_only else nn.ConvTranspose2d(width, num_classes, 2, stride=2)
        )

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.decoder(self.encoder(images))
        return scores


class Residual(nn.Module):
    """conv-BN-ReLU-conv-BN-dropout beside a skip."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, 2 * width, 3, padding=1),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
            nn.Conv2d(2 * width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.Dropout2d(0.2),
        )

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return torch.relu(self.body(input) + input)


DATA = StreetData(size=(16, 32), num_train=16, num_validation=4, num_test=4)
SGD = OptimizerSettings(name="sgd", learning_rate=0.05)
TRAIN = Train(epochs=4, batch_size=4, optimizer=OptimizerSettings(learning_rate=3e-3), threads=1, device="cpu")
SHRINK = Controller(budget=Budget(macs=0.4), begin=0.25, end=0.75)


def build(**settings) -> TinySegmenter:
    """Return the wide network, the same each time."""
    torch.manual_seed(0)
    return TinySegmenter(num_classes=len(DATA.class_names), **settings)


def example() -> Tensor:
    """Return an image, [1, 3, H, W]."""
    return DATA.train()[0][0][None]


def training(folder: Path, name: str = "narrow", seed: int = 0, **changes) -> TrainingJob:
    """Return the training `name` in `folder` under TRAIN with `changes`."""
    return TrainingJob(
        name=name,
        data=DATA,
        task=Segmentation().bind(DATA),
        settings=dataclasses.replace(TRAIN, **changes),
        seed=seed,
        folder=folder,
        recorder=Recorder(folder),
    )


RECIPE = """\
# A whole run in seconds.
name: tiny
data:
  class_path: prunus.data.StreetData
  init_args: {size: [16, 32], num_train: 16, num_validation: 4, num_test: 4}
model:
  class_path: tiny.TinySegmenter
train: {epochs: 4, batch_size: 4, threads: 1, device: cpu}
deploy:
  benchmark: {backends: [onnxruntime], repeats: 2, warmup: 0, measure_memory: false}
  parity_samples: 2
report_samples: 1
"""


def write_recipe(folder: Path) -> Path:
    """Write the tiny recipe and return its path."""
    path = folder / "tiny.yaml"
    path.write_text(RECIPE)
    return path
