"""The tasks of `frontier.py`: shipped recipes, and one for CIFAR-10, at sizes that one core trains in minutes.

Every arm of a task trains with the same batch size, and its learning rate is chosen among the same three; the epochs
are those in `frontier_arms.py`.
"""

import argparse
import dataclasses
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from claims_arms import SubsetOfCIFAR10
from torch import Tensor, nn

from prunus.budget import Budget
from prunus.budget.controller import Controller
from prunus.models.small import ResidualBlock
from prunus.pipeline import Recipe
from prunus.recipe import load
from prunus.tasks.classification import Classification
from prunus.train.settings import OptimizerSettings, Train

RECIPES = Path(__file__).parent.parent / "recipes"
BUDGETS = {
    "macs=0.3": Budget(macs=0.3),
    "macs=0.1": Budget(macs=0.1),
    "macs=0.15": Budget(macs=0.15),
    "latency=0.5": Budget(latency=0.5),
}


class ResNet20(nn.Module):
    """He et al. 2016, section 4.2, with n = 3: images [N, 3, H, W] to class scores [N, num_classes]."""

    def __init__(self, *, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        widths = [16, *(width for width in (16, 32, 64) for _ in range(3))]
        blocks = [ResidualBlock(a, b, stride=1 if a == b else 2) for a, b in itertools.pairwise(widths)]
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Linear(64, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return the class scores before softmax."""
        scores: Tensor = self.classifier(self.blocks(self.stem(images)).mean((2, 3)))
        return scores


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """A recipe as a function of the data folder, and the candidate learning rates of its arms."""

    recipe: Callable[[Path], Recipe]
    rates: tuple[float, ...]
    metric: str


def gtsrb(data: Path) -> Recipe:
    overrides = [f"data.root={data / 'gtsrb_small'}", "train.epochs=16", "train.evaluate_every=16"]
    return load(Recipe, RECIPES / "gtsrb_small.yaml", overrides)


def camvid(data: Path) -> Recipe:
    overrides = [f"data.root={data / 'camvid'}", "data.size=[72,96]", "train.epochs=12", "train.evaluate_every=12"]
    overrides += ["train.num_workers=0"]
    return load(Recipe, RECIPES / "camvid_erfnet.yaml", overrides)


def cifar10(data: Path) -> Recipe:
    optimizer = OptimizerSettings(name="sgd", learning_rate=0.1, weight_decay=5e-4)
    return Recipe(
        name="cifar10_resnet20",
        data=SubsetOfCIFAR10(root=data / "cifar10_jpg", size=(24, 24)),
        model=ResNet20,
        task=Classification(),
        train=Train(epochs=12, batch_size=64, optimizer=optimizer, schedule="cosine", evaluate_every=12),
        shrink=Controller(),
    )


TASKS = {
    "gtsrb": Task(recipe=gtsrb, rates=(0.01, 0.03, 0.1), metric="top1"),
    "camvid": Task(recipe=camvid, rates=(5e-4, 1e-3, 2e-3), metric="miou"),
    "cifar10": Task(recipe=cifar10, rates=(0.03, 0.1, 0.3), metric="top1"),
}


def add_options(parser: argparse.ArgumentParser, tasks: Sequence[str]) -> None:
    """Add the options of a benchmark on these tasks; `tasks` are those it runs by default."""
    parser.add_argument("--data", type=Path, default=Path("data"), help="holds gtsrb_small, camvid and cifar10_jpg")
    parser.add_argument("--tasks", nargs="+", default=list(tasks), choices=list(TASKS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path("runs/frontier"))


def recipe_of(task: str, data: Path, *, budget: str | None, rate: float | None, seed: int, folder: Path) -> Recipe:
    """Return the recipe of a task with a budget (None: no shrinking) and a learning rate (None: the recipe's own)."""
    recipe = TASKS[task].recipe(data)
    settings, shrink = recipe.train, None
    if rate is not None:
        settings = dataclasses.replace(settings, optimizer=dataclasses.replace(settings.optimizer, learning_rate=rate))
    settings = dataclasses.replace(settings, keep_checkpoints=1, threads=torch.get_num_threads())
    if budget is not None:
        assert recipe.shrink is not None
        bound = dataclasses.replace(BUDGETS[budget], multiple_of=recipe.shrink.budget.multiple_of)
        shrink = dataclasses.replace(recipe.shrink, budget=bound)
    return dataclasses.replace(
        recipe, train=settings, shrink=shrink, baseline=False, seed=seed, output=str(folder), report_samples=0
    )
