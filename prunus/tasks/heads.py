"""Detector heads turn raw output into a loss and detections: settings that bind to the classes and the image size."""

import abc
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from prunus.boxes import Objects
from prunus.errors import RecipeError, TrainingError


class BoundHeads(abc.ABC):
    """Heads of a detector for C known classes and images of one size.

    `suppresses` is true if `decode` needs non-maximum suppression, which is not exported.
    """

    suppresses: bool

    @abc.abstractmethod
    def loss(self, output: Any, objects: Sequence[Objects]) -> Tensor:
        """Return the loss of a batch's raw output against the objects of each image, a scalar.

        Raises:
            TrainingError: the output does not fit these heads.
        """

    def weighted(self, weights: Tensor) -> "BoundHeads":
        """Return these heads with the loss of each class multiplied by its weight, float [C].

        Raises:
            RecipeError: their loss does not support class weights.
        """
        raise RecipeError(f"the loss of {type(self).__name__} does not support class weights: remove protect.classes")

    @abc.abstractmethod
    def imitation(self, output: Any, answer: Any) -> Tensor:
        """Return the distance of a raw output from a teacher's `answer`, a scalar without gradient to the teacher."""

    @abc.abstractmethod
    def decode(self, output: Any, most: int) -> Tensor:
        """Return the `most` best detections of each image, float32 [N, most, 6], best first: see `prunus.boxes`."""


class Heads(abc.ABC):
    """Settings of a kind of heads; a final subclass is a frozen dataclass."""

    @abc.abstractmethod
    def bind(self, num_classes: int, size: tuple[int, int]) -> BoundHeads:
        """Return the heads for `num_classes` classes and images of `size` (height, width)."""


def parts(output: Any, needed: Mapping[str, int], heads: str) -> list[Tensor]:
    """Return the tensors of an output at the keys of `needed`, which gives their numbers of dimensions.

    Raises:
        TrainingError: the output does not hold them; the message describes it and the remedy.
    """
    found = [output.get(key) if isinstance(output, Mapping) else None for key in needed]
    if all(isinstance(each, Tensor) and each.dim() == dim for each, dim in zip(found, needed.values(), strict=True)):
        return [each for each in found if isinstance(each, Tensor)]
    keys = f" with the keys {', '.join(map(str, output))}" if isinstance(output, Mapping) else ""
    raise TrainingError(
        f"the network returns a {type(output).__name__}{keys}, and the task's heads ({heads}) read a dict of tensors "
        f"with the keys {', '.join(needed)}: set task.heads to those of this network, or take another network"
    )
