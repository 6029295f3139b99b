"""torch-pruning as its documentation uses it: a trained network is pruned once or in steps, and fine-tuned.

The pruner, its importance and `iterative_steps=5` are from its README, the number of Taylor batches is from its example
(`--taylor_batchs 10`), and the classifier is not pruned. A search finds the channel ratio whose multiply-adds or
milliseconds fit the budget; in several steps the share of channels decreases linearly, as in its scheduler.
"""

import copy
import dataclasses
import itertools
import math

from frontier_train import Trained, begun, costs, fitted, largest
from torch import nn

from prunus.pipeline import Recipe
from prunus.pipeline.context import RunContext
from prunus.train.batches import training_batches

BATCHES = 10
STEPS = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class TorchPruning:
    """Settings of torch-pruning."""

    importance: str  # "l2" or "taylor"
    steps: int = 1
    across_layers: bool = False  # its `global_pruning`

    def tuned(self, recipe: Recipe, before: Trained, epochs: int, teacher: Trained | None = None) -> Trained:
        """Prune the network of `before`, and fine-tune it for `epochs` epochs, with `teacher` if it is given."""
        run, model = begun(recipe), copy.deepcopy(before.model)
        assert recipe.shrink is not None
        cost, bound = costs(run, before.model, recipe.shrink.budget)
        for step in range(1, self.steps + 1):
            share = (1 - (1 - math.sqrt(bound)) * step / self.steps) ** 2  # the channels decrease linearly
            wider = model.eval()
            if self.importance == "taylor":
                gradients_(run, wider)
            model = largest(lambda kept, wider=wider: self.pruned(run, wider, 1 - kept), cost, share)  # type: ignore[misc]
            own = epochs - (self.steps - 1) if step == self.steps else 1
            settings = dataclasses.replace(recipe.train, epochs=own, warmup_epochs=0.0, evaluate_every=own)
            model = fitted(run, model, name=f"tuned-{step}", settings=settings, teacher=teacher).model
        return Trained(run=run, model=model, folders=(*before.folders, run.folder))

    def pruned(self, run: RunContext, model: nn.Module, ratio: float) -> nn.Module:
        """Return a copy without the share `ratio` of the channels; Taylor importance reads the gradients of `model`."""
        import torch_pruning

        model, wider = copy.deepcopy(model), model
        for own, known in zip(model.parameters(), wider.parameters(), strict=True):
            own.grad = None if known.grad is None else known.grad.clone()  # deepcopy drops gradients
        kinds = torch_pruning.importance
        importance = (
            kinds.GroupTaylorImportance() if self.importance == "taylor" else kinds.GroupMagnitudeImportance(p=2)
        )
        layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)]
        pruner = torch_pruning.pruner.BasePruner(
            model,
            run.inputs,
            importance=importance,
            pruning_ratio=ratio,
            global_pruning=self.across_layers,
            ignored_layers=[layers[-1]],
        )
        pruner.step()
        model.zero_grad(set_to_none=True)
        return model


def gradients_(run: RunContext, model: nn.Module) -> None:
    """Accumulate the gradients of the loss over some training batches in the network."""
    split, settings = run.recipe.data.train(), run.recipe.train
    model.zero_grad(set_to_none=True)
    for images, target in itertools.islice(training_batches(split, settings, run.recipe.seed, 0, 0), BATCHES):
        run.task.loss(model(images), target).backward()
