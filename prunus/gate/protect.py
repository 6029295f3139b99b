"""Protection of what is rare: classes and conditions that weigh more while the network shrinks and is tuned.

The importance by which channels are removed is Taylor's (Molchanov et al., CVPR 2019), made of the gradients of the
loss: what weighs more in the loss, or is drawn more often, weighs more in what is kept, too.
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
    """Classes that weigh more in the loss, and conditions whose images are drawn more often.

    It acts on the trainings of all stages, not on that of the wide network, with which they are compared.

    Attributes:
        classes: their names; of several tasks, "detection: car" is that of one, "car" that of each that has it.
        conditions: as the data name them; such images are drawn `weight` times as often, with replacement.
        weight: above 1; the loss of these classes counts so many times.
    """

    classes: tuple[str, ...] = ()
    conditions: tuple[str, ...] = ()
    weight: float = 4.0

    def __post_init__(self) -> None:
        if not (self.classes or self.conditions):
            raise RecipeError("protect names nothing: give classes: [pedestrian], or conditions: [night]")
        if not 1 < self.weight < math.inf:
            raise RecipeError(f"protect.weight is {self.weight}: what is protected weighs more than 1")

    def task(self, task: BoundTask, class_names: tuple[str, ...]) -> BoundTask:
        """Return the task, the protected classes weighing more in its loss.

        Raises:
            RecipeError: no such class, or a task that cannot weigh classes.
        """
        own = {full: {full, full.partition(": ")[2]} & set(self.classes) for full in class_names}
        if unknown := [name for name in self.classes if not any(name in found for found in own.values())]:
            raise RecipeError(f"protect.classes names {', '.join(unknown)}; the data have {', '.join(class_names)}")
        if not self.classes:
            return task
        return task.weighted(torch.tensor([self.weight if own[name] else 1.0 for name in class_names]))

    def data(self, data: Data) -> Data:
        """Return the data, images of the protected conditions drawn more often in training.

        Raises:
            RecipeError: no training image is of one of the conditions.
        """
        return ProtectedData(data=data, protect=self) if self.conditions else data


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class ProtectedData(Data):
    """`data` whose training split draws images of some conditions more often."""

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
        """Return the training split, weighed.

        Raises:
            RecipeError: it has no image of a condition.
        """
        split, wanted = self.data.train(), set(self.protect.conditions)
        found = [set(split.conditions(index)) for index in range(len(split))]
        if missing := sorted(wanted - set().union(*found)):
            raise RecipeError(f"protect.conditions names {', '.join(missing)}, and no training image is of it")
        return split.weigh(torch.tensor([self.protect.weight if own & wanted else 1.0 for own in found]))
