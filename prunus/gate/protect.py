"""Protection of rare classes and conditions: more weight for them while the network shrinks and is fine-tuned.

Channels are removed by Taylor importance (Molchanov et al., CVPR 2019), computed from the gradients of the loss: more
weight in the loss, or more frequent images, also influence more which channels are kept.
"""

import dataclasses
import math
from typing import final

import torch

from prunus.data.interface import Data, Split, SplitName
from prunus.errors import RecipeError
from prunus.tasks.interface import BoundTask


@dataclasses.dataclass(frozen=True, kw_only=True)
class Protect:
    """Classes with more weight in the loss, and conditions whose images are drawn more often.

    It applies to the trainings of all stages, but not to that of the wide network, their reference.

    Attributes:
        classes: class names; with several tasks, "detection: car" names the class of one sub-task, "car" of all.
        conditions: as named by the data; such images are drawn `weight` times as often, with replacement.
        weight: above 1; factor on the loss of these classes.
    """

    classes: tuple[str, ...] = ()
    conditions: tuple[str, ...] = ()
    weight: float = 4.0

    def __post_init__(self) -> None:
        if not (self.classes or self.conditions):
            raise RecipeError("protect needs classes or conditions: give classes: [pedestrian], or conditions: [night]")
        if not 1 < self.weight < math.inf:
            raise RecipeError(f"protect.weight is {self.weight} and must be above 1")

    def task(self, task: BoundTask, class_names: tuple[str, ...]) -> BoundTask:
        """Return the task with more weight on the protected classes in its loss.

        Raises:
            RecipeError: a class does not exist, or the task does not support class weights.
        """
        own = {full: {full, full.partition(": ")[2]} & set(self.classes) for full in class_names}
        if unknown := [name for name in self.classes if not any(name in found for found in own.values())]:
            raise RecipeError(f"protect.classes names {', '.join(unknown)}; the data have {', '.join(class_names)}")
        if not self.classes:
            return task
        return task.weighted(torch.tensor([self.weight if own[name] else 1.0 for name in class_names]))

    def data(self, data: Data) -> Data:
        """Return the data, with images of the protected conditions drawn more often in training."""
        return ProtectedData(data=data, protect=self) if self.conditions else data


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class ProtectedData(Data):
    """A data set whose training split draws images of some conditions more often."""

    data: Data
    protect: Protect

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.data.class_names

    def split(self, name: SplitName) -> Split:
        """Return the split of the data."""
        return self.data.split(name)

    def train(self) -> Split:
        """Return the weighted training split.

        Raises:
            RecipeError: a condition has no training image.
        """
        split, wanted = self.data.train(), set(self.protect.conditions)
        found = [set(split.conditions(index)) for index in range(len(split))]
        if missing := sorted(wanted - set().union(*found)):
            raise RecipeError(f"protect.conditions names {', '.join(missing)}, and no training image has it")
        return split.weigh(torch.tensor([self.protect.weight if own & wanted else 1.0 for own in found]))
