"""The arms of `claims.py`: each a recipe on a data set of this size, trained once a seed and kept in a folder."""

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prunus.budget import Budget
from prunus.budget.controller import Controller
from prunus.data import Chars74KData, CIFAR10Data, ImageFolderData
from prunus.data.classification import CropAndFlip
from prunus.data.interface import SplitName
from prunus.data.labelled import LabelledArray
from prunus.graph import trace
from prunus.models.decn import Dec3, Pair, SkippedPair
from prunus.models.small_net import SmallNet
from prunus.penalties import GroupLasso, NuclearNorm, Orthogonality
from prunus.pipeline import Contract, Expand, Factorize, Recipe, Stage, Watch, stages, walk
from prunus.pipeline.scratch import fresh
from prunus.records import Recorder
from prunus.tasks.classification import Classification
from prunus.train.evaluate import evaluate
from prunus.train.fit import fit
from prunus.train.settings import OptimizerSettings, Train

ADAM = OptimizerSettings(name="adam", learning_rate=2e-3)
SGD = OptimizerSettings(name="sgd", learning_rate=0.05)
PUBLISHED = OptimizerSettings(name="sgd", learning_rate=0.01, weight_decay=0.0)  # ExpandNets on CIFAR
CHARACTERS = Train(epochs=30, batch_size=64, optimizer=SGD, schedule="cosine", evaluate_every=30)
SIGNS = dataclasses.replace(CHARACTERS, epochs=12, optimizer=ADAM, evaluate_every=12)
PICTURES = Train(epochs=9, batch_size=64, optimizer=PUBLISHED, schedule="step", milestones=(3, 6), evaluate_every=9)
GROUPS = GroupLasso(strength="auto", share=0.1, when="epoch")  # at the end of an epoch, as the papers do it
RANKS = NuclearNorm(strength="auto", share=0.02, when="epoch")
ENERGY = 0.9
EVERYTHING = ("k>1", "hidden")
NUM_PICTURES = 3000


class SubsetOfCIFAR10(CIFAR10Data):
    """The first of each class's training images, as many of each, `NUM_PICTURES` in all."""

    def source(self, split: SplitName) -> LabelledArray:
        """Return the images of the split."""
        whole = super().source(split)
        if split != "train":
            return whole
        labels = torch.tensor(whole.labels)
        chosen = torch.cat([(labels == each).nonzero()[: NUM_PICTURES // 10, 0] for each in range(10)])
        return LabelledArray(whole.images[chosen], labels[chosen].tolist(), size=whole.size)


class SkippedNet(nn.Module):
    """Two pairs, then four with a skip around each: Dec8's learned depth at a size for traffic signs of 32 x 32."""

    def __init__(self, *, num_classes: int, width: int = 48) -> None:
        super().__init__()
        skipped = [SkippedPair(width) for _ in range(4)]
        layers = [Pair(3, 16, 24), nn.MaxPool2d(2), Pair(24, 32, width), nn.MaxPool2d(2), *skipped]
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # as Dec8 does
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Class scores [N, num_classes]."""
        scores: Tensor = self.classifier(self.features(images).mean((2, 3)))
        return scores


def arms(data: Path) -> dict[str, Recipe]:
    """Return every arm by its name."""
    characters = Recipe(
        name="characters",
        data=Chars74KData(root=data / "chars74k_img36", size=(20, 20)),
        model=functools.partial(Dec3, width=64, stem=((12, 16), (24, 32))),
        task=Classification(label_smoothing=0.1),
        train=CHARACTERS,
        shrink=None,
        then=(Stage(name="factorised", edits=(Factorize(energy=ENERGY, layers=("*", "!classifier")),)),),
        baseline=False,
    )
    signs = dataclasses.replace(
        characters,
        data=ImageFolderData(
            root=data / "gtsrb_small",
            augmentation=CropAndFlip(flip=0.0, padding=3),
            size=(32, 32),
            validation_folder=None,
            test_folder="test",
            block_separator="_",
        ),
        model=SkippedNet,
        train=SIGNS,
        then=(),
    )
    found = {
        "plain": characters,
        "groups": dataclasses.replace(characters, penalties=(GROUPS,)),
        "budget": dataclasses.replace(characters, shrink=Controller(budget=Budget(params=0.4))),
        "ranks-groups": dataclasses.replace(characters, penalties=(RANKS, GROUPS)),
        "orthogonal": dataclasses.replace(characters, penalties=(Orthogonality(strength=1e-2, scope="global"),)),
        "skips": signs,
        "skips-groups": dataclasses.replace(signs, penalties=(dataclasses.replace(GROUPS, share=0.25),)),
    }
    for kernel in (3, 7):
        small = dataclasses.replace(
            characters,
            data=SubsetOfCIFAR10(root=data / "cifar10_jpg"),
            model=functools.partial(SmallNet, kernel=kernel),
            task=Classification(),
            train=PICTURES,
            then=(),
        )
        expanded = dataclasses.replace(
            small, edits=(Expand(layers=EVERYTHING, rate=4),), then=(Stage(name="contracted", edits=(Contract(),)),)
        )
        found |= {f"small-k{kernel}": small, f"expanded-k{kernel}": expanded}
    return found


def outcome(recipe: Recipe, arm: str, seed: int, folder: Path) -> dict[str, Any]:
    """Return the figures of each network that an arm leads to; what was begun in `folder` goes on, none is done twice.

    The arm "budget/adam" is the architecture of "budget", which lies in the folder beside, trained from scratch.
    """
    kept = folder / "figures.json"
    if kept.exists():
        found: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
        return found
    base, _, optimizer = arm.partition("/")
    recipe = dataclasses.replace(recipe, seed=seed)
    recorder = Recorder(folder.parent / f"{base}-{seed}")
    run = stages.Run(
        recipe=recipe,
        folder=recorder.path.parent,
        recorder=recorder,
        task=recipe.task.bind(recipe.data),
        inputs=recipe.data.train()[0][0][None],
        watch=Watch(),
    )
    walk.rehearse(recipe.stages, stages.build_wide(run), run.inputs)
    networks = stages.walk(run, None, None)  # of a base that is done: read from its checkpoint
    if optimizer:
        settings = dataclasses.replace(recipe.train, optimizer={"adam": ADAM, "sgd": SGD}[optimizer])
        model = fresh(networks[0].model, stages.build_wide(run), seed)
        fitted = fit(run.training(f"scratch-{optimizer}", settings, run.task), model, run.inputs)
        networks = [walk.Network(name="joint", model=fitted.model, seconds=fitted.seconds)]
    figures = {("joint" if each is networks[0] else each.name): _figures(run, each) for each in networks}
    folder.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(figures), encoding="utf-8")
    return figures


def _figures(run: stages.Run, network: walk.Network) -> dict[str, Any]:
    groups = trace(network.model, run.inputs)
    metrics, _ = evaluate(network.model, run.task, run.recipe.data.test(), run.recipe.train)
    return {
        "top1": metrics["top1"],
        "params": groups.params(),
        "macs": groups.macs(),
        "skipped_pairs": sum(isinstance(module, SkippedPair) for module in network.model.modules()),
        "seconds": network.seconds,
    }
