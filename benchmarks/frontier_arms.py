"""The arms of `frontier.py`: ways to a network of a given cost, all with the same batch size.

With as many epochs as the wide network:

- wide: the network as built, for comparison.
- uniform: the same share of the channels of every layer, from scratch.
- tp-...: torch-pruning after half of the epochs (`frontier_rivals.py`); "-steps" in five steps, "-global" with one
  threshold for all layers.
- select: `prunus.select` with its defaults after half of the epochs, fine-tuned for the rest.
- joint: a recipe with that budget and without a trained wide network.
- scratch: the architecture found by joint, from scratch.

With twice as many epochs, which include the training of the wide network if the arm uses it:

- wide-long: the network as built, for comparison, at the wide network's learning rate.
- started: a recipe with that budget and its defaults: the joint training starts from the trained wide network.
- taught: as started, and also learns from the wide network's scores.
- fresh-taught: learns from the wide network's scores, and starts from fresh weights.
- uniform-taught: the uniformly thinner network, from scratch, with the same teacher.
- uniform-long: the uniformly thinner network, from scratch, for twice as long.
- tp-taylor-after: torch-pruning on the trained wide network, fine-tuned for as long again; "-taught" with the same
  teacher.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from frontier_rivals import STEPS, TorchPruning
from frontier_tasks import recipe_of
from frontier_train import Trained, begun, costs, fitted, largest, walked
from torch import nn

from prunus import apply, select, trace
from prunus.graph import ChannelGroups
from prunus.pipeline import Recipe, stages
from prunus.pipeline.reinitialization import reinitialized
from prunus.surgery.removal import removal
from prunus.tasks.distillation import Distillation

ONCE: tuple[str, ...] = (
    "uniform",
    "tp-l2",
    "tp-l2-steps",
    "tp-taylor",
    "tp-taylor-steps",
    "tp-taylor-global",
    "select",
    "joint",
    "scratch",
)
OURS_TWICE: dict[str, dict[str, Any]] = {  # changes to the recipe, by arm
    "started": {},
    "taught": {"distillation": Distillation()},
    "fresh-taught": {"start": "fresh", "distillation": Distillation()},
}
TWICE = ("uniform-long", "uniform-taught", "tp-taylor-after", "tp-taylor-taught", *OURS_TWICE)
ARMS = (*ONCE, *TWICE)
OURS = ("joint", "started")
WIDE, WIDE_LONG = "wide", "wide-long"
RIVALS = {
    "tp-l2": TorchPruning(importance="l2"),
    "tp-l2-steps": TorchPruning(importance="l2", steps=STEPS),
    "tp-taylor": TorchPruning(importance="taylor"),
    "tp-taylor-steps": TorchPruning(importance="taylor", steps=STEPS),
    "tp-taylor-global": TorchPruning(importance="taylor", across_layers=True),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attempt:
    """An arm at a learning rate with a seed; each training has its own folder, as has the half that arms share.

    Attributes:
        budget: a name of `BUDGETS`; None for the wide network.
        wide_rate: learning rate of the trained wide network from which an arm of twice the epochs starts.
        joint_rate: learning rate of the joint network whose architecture "scratch" uses.
        change: applied to each recipe before its training.
    """

    task: str
    budget: str | None
    arm: str
    rate: float
    seed: int
    data: Path
    runs: Path
    wide_rate: float | None = None
    joint_rate: float | None = None
    change: Callable[[Recipe], Recipe] = lambda recipe: recipe

    def recipe(self, *, arm: str, rate: float | None = None, budget: str | None = None) -> Recipe:
        """Return the recipe of `arm`, in its folder."""
        rate = rate or self.rate
        folder = self.runs / self.task / (budget or "all") / arm / f"{rate}-{self.seed}"
        return self.change(recipe_of(self.task, self.data, budget=budget, rate=rate, seed=self.seed, folder=folder))

    def train(self) -> Trained:
        """Train the arm, or resume its training."""
        if self.arm == WIDE:
            return walked(self.recipe(arm=WIDE))
        if self.arm == WIDE_LONG:
            recipe = self.recipe(arm=WIDE_LONG)
            epochs = 2 * recipe.train.epochs
            train = dataclasses.replace(recipe.train, epochs=epochs, evaluate_every=epochs)
            return walked(dataclasses.replace(recipe, train=train))
        if self.arm == "joint":
            return walked(self.recipe(arm=self.arm, budget=self.budget))
        recipe = self.recipe(arm=self.arm, budget=self.budget)
        if self.arm in TWICE:
            return self.twice(recipe)
        if self.arm == "uniform":
            return uniform(recipe)
        if self.arm == "scratch":
            assert self.joint_rate is not None
            narrow = walked(self.recipe(arm="joint", rate=self.joint_rate, budget=self.budget))
            run = begun(recipe)
            return fitted(run, reinitialized(narrow.model, stages.build_wide(run), self.seed))
        half = self.half()
        if self.arm == "select":
            return selected(recipe, half)
        return RIVALS[self.arm].tuned(recipe, half, recipe.train.epochs - half.run.recipe.train.epochs)

    def twice(self, recipe: Recipe) -> Trained:
        """Train an arm that has twice the epochs."""
        epochs = recipe.train.epochs
        if self.arm == "uniform-long":
            return uniform(recipe, epochs=2 * epochs)
        assert self.wide_rate is not None
        wide = walked(self.recipe(arm=WIDE, rate=self.wide_rate))
        if self.arm in OURS_TWICE:
            return walked(dataclasses.replace(recipe, baseline=True, **OURS_TWICE[self.arm]), wide)
        if self.arm == "uniform-taught":
            return uniform(recipe, teacher=wide)
        teacher = wide if self.arm.endswith("-taught") else None
        return RIVALS[self.arm.rsplit("-", 1)[0]].tuned(recipe, wide, epochs, teacher)

    def half(self) -> Trained:
        """Train the wide network for half of the epochs with an annealed learning rate, the start of pruning arms."""
        recipe = self.recipe(arm="half")
        epochs = recipe.train.epochs // 2
        train = dataclasses.replace(recipe.train, epochs=epochs, evaluate_every=epochs)
        return walked(dataclasses.replace(recipe, train=train))


def uniform(recipe: Recipe, *, epochs: int | None = None, teacher: Trained | None = None) -> Trained:
    """Train the uniformly thinner network from scratch, for as many epochs as the recipe has or for `epochs`."""
    assert recipe.shrink is not None
    run = begun(recipe)
    wide = stages.build_wide(run)
    groups = trace(wide, run.inputs)
    cost, bound = costs(run, wide, recipe.shrink.budget)
    thin = largest(lambda share: thinned(wide, groups, share), cost, bound)
    epochs = epochs or recipe.train.epochs
    settings = dataclasses.replace(recipe.train, epochs=epochs, evaluate_every=epochs)
    network = reinitialized(thin, stages.build_wide(run), recipe.seed)
    return fitted(run, network, settings=settings, teacher=teacher)


def thinned(wide: nn.Module, groups: ChannelGroups, share: float) -> nn.Module:
    """Return a copy with the first `share` of the channels of each layer, at least one."""
    removed = torch.zeros(len(groups), dtype=torch.bool)
    for layer in range(len(groups.layer_names)):
        members = ((groups.layers == layer) & groups.exact).nonzero().flatten()
        removed[members[max(1, round(share * members.numel())) :]] = True
    return apply(removal(groups, removed), wide)


def selected(recipe: Recipe, half: Trained) -> Trained:
    """Cut the network of half the epochs by `prunus.select`, and fine-tune it for the other half."""
    assert recipe.shrink is not None
    run, budget = begun(recipe), recipe.shrink.budget
    meter = run.meter(half.model) if budget.is_timed else None
    plan = select(half.model, trace(half.model, run.inputs), budget=budget, meter=meter)
    epochs = recipe.train.epochs - half.run.recipe.train.epochs
    settings = dataclasses.replace(recipe.train, epochs=epochs, warmup_epochs=0.0, evaluate_every=epochs)
    return fitted(run, apply(plan, half.model), settings=settings, after=half)
