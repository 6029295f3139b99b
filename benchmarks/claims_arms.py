"""The arms of `claims.py`: each a recipe on a data set of this size, trained once a seed and kept in a folder.

Strengths and the end of shrinking are those of `Settings`. `claims_choice.py` tries others on a part held out of the
training images, with a seed that the table has not; `skip_share` is what it chose, the others stand as first set.
"""

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prunus.budget import Budget
from prunus.budget.controller import Controller
from prunus.data import Chars74KData, CIFAR10Data
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Shares that the penalties take an epoch, and when the budget is met: part of the training."""

    group_share: float = 0.1
    rank_share: float = 0.02
    skip_share: float = 0.1
    shrink_end: float = 0.5


CHARACTERS = Train(
    epochs=30,
    batch_size=64,
    optimizer=OptimizerSettings(name="sgd", learning_rate=0.05),
    schedule="cosine",
    precision="bfloat16",
    channels_last=True,
    evaluate_every=30,
)
SKIPPED = dataclasses.replace(CHARACTERS, epochs=20, warmup_epochs=1, evaluate_every=20)
ADAM = OptimizerSettings(name="adam", learning_rate=2e-3)
PUBLISHED = OptimizerSettings(name="sgd", learning_rate=0.01, weight_decay=0.0)  # ExpandNets on CIFAR
PICTURES = dataclasses.replace(
    CHARACTERS, epochs=9, optimizer=PUBLISHED, schedule="step", milestones=(3, 6), evaluate_every=9
)
ENERGY = 0.9
EVERYTHING = ("k>1", "hidden")
NUM_PICTURES = 3000
CHOSEN = Settings()


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
    """Two pairs, then four with a skip around each: Dec8's learned depth at a size for characters of 20 x 20."""

    def __init__(self, *, num_classes: int, width: int = 48) -> None:
        super().__init__()
        skipped = [SkippedPair(width) for _ in range(4)]
        layers = [Pair(1, 12, 16, 9), nn.MaxPool2d(2), Pair(16, 24, width, 9), nn.MaxPool2d(2), *skipped]
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # as Dec3 and Dec8 do
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Class scores [N, num_classes]."""
        scores: Tensor = self.classifier(self.features(images).mean((2, 3)))
        return scores


def arms(data: Path, chosen: Settings = CHOSEN) -> dict[str, Recipe]:
    """Return every arm by its name."""
    groups = GroupLasso(strength="auto", share=chosen.group_share, when="epoch")  # after an epoch, as the papers do it
    ranks = NuclearNorm(strength="auto", share=chosen.rank_share, when="epoch")
    characters = Recipe(
        name="characters",
        data=Chars74KData(root=data / "chars74k_img36", size=(20, 20)),
        model=functools.partial(Dec3, width=256, stem=((24, 48), (80, 128))),  # half of the published widths
        task=Classification(label_smoothing=0.1),
        train=CHARACTERS,
        shrink=None,
        then=(Stage(name="factorised", edits=(Factorize(energy=ENERGY, layers=("*", "!classifier")),)),),
        baseline=False,
    )
    skipped = dataclasses.replace(characters, model=SkippedNet, train=SKIPPED, then=())
    found = {
        "plain": characters,
        "groups": dataclasses.replace(characters, penalties=(groups,)),
        "budget": dataclasses.replace(characters, shrink=Controller(budget=Budget(params=0.4), end=chosen.shrink_end)),
        "ranks-groups": dataclasses.replace(characters, penalties=(ranks, groups)),
        "orthogonal": dataclasses.replace(characters, penalties=(Orthogonality(strength=1e-2, scope="global"),)),
        "skips": skipped,
        "skips-groups": dataclasses.replace(skipped, penalties=(dataclasses.replace(groups, share=chosen.skip_share),)),
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
            small,
            edits=(Expand(layers=EVERYTHING, rate=4),),
            then=(Stage(name="contracted", edits=(Contract(),)),),
        )
        found |= {f"small-k{kernel}": small, f"expanded-k{kernel}": expanded}
    return found


def outcome(recipe: Recipe, arm: str, seed: int, folder: Path, *, split: SplitName = "test") -> dict[str, Any]:
    """Return the figures of each network that an arm leads to; what was begun in `folder` goes on, none is done twice.

    The arm "budget/adam" is the architecture of "budget", which lies in the folder beside, trained from scratch.
    Accuracies are those on `split`.
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
        own = recipe.train
        settings = own if optimizer == "sgd" else dataclasses.replace(own, optimizer=ADAM)
        model = fresh(networks[0].model, stages.build_wide(run), seed)
        fitted = fit(run.training(f"scratch-{optimizer}", settings, run.task), model, run.inputs)
        networks = [walk.Network(name="joint", model=fitted.model, seconds=fitted.seconds)]
    figures = {("joint" if each is networks[0] else each.name): _figures(run, each, split) for each in networks}
    folder.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(figures), encoding="utf-8")
    return figures


def _figures(run: stages.Run, network: walk.Network, split: SplitName) -> dict[str, Any]:
    data = run.recipe.data
    groups = trace(network.model, run.inputs)
    metrics, _ = evaluate(
        network.model, run.task, data.test() if split == "test" else data.validation(), run.recipe.train
    )
    return {
        "top1": metrics["top1"],
        "params": groups.params(),
        "macs": groups.macs(),
        "skipped_pairs": sum(isinstance(module, SkippedPair) for module in network.model.modules()),
        "seconds": network.seconds,
    }
