"""Selects the tensors of a network's output that a task reads: the scores, and those of auxiliary heads.

Networks return a tensor, or dictionaries, tuples, lists and dataclasses of tensors: torchvision's segmentation networks
return {"out": ..., "aux": ...}, transformers a `ModelOutput`, GoogLeNet a named tuple in training. A tensor is named by
its keys, fields and indices, joined with dots: "out", "logits", "heads.0".
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from prunus.errors import RecipeError, TrainingError
from prunus.modules.tree import named_leaves


def named_tensors_of(output: Any) -> dict[str, Tensor]:
    """Return the tensors of a network's output by name, in its order; a single tensor has the name ""."""
    return {name: leaf for name, leaf in named_leaves(output) if isinstance(leaf, Tensor)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reading:
    """Selects tensors of a network's output.

    Attributes:
        output: the name of the tensor of scores; None: the only tensor. If a network returns a bare tensor (as
            GoogLeNet does in evaluation), the name is ignored.
        auxiliary: loss weights of auxiliary heads by the names of their scores; used in training only.
    """

    output: str | None = None
    auxiliary: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, weight in self.auxiliary.items():
            if not 0 < weight < math.inf:
                raise RecipeError(f"task.auxiliary gives {name!r} the weight {weight}: it is a number above zero")
        if self.output is not None and self.output in self.auxiliary:
            raise RecipeError(f"task.output and task.auxiliary both name {self.output!r}: a head is one or the other")

    def scores(self, output: Any) -> Tensor:
        """Return the tensor of scores in a network's output.

        Raises:
            TrainingError: there is no tensor of that name, or the choice is ambiguous.
        """
        found = named_tensors_of(output)
        if len(found) == 1 and (self.output is None or "" in found):
            return next(iter(found.values()))
        if self.output in found:
            return found[self.output]
        wanted = "one tensor of scores" if self.output is None else f"the output {self.output!r}"
        raise TrainingError(
            f"the network returns {_described(output, found)}, and the task reads {wanted}: name the one that counts "
            "(task.output), give a network whose forward picks it out, or a task of your own that reads it "
            "(docs/extending.md)"
        )

    def auxiliary_scores(self, output: Any) -> list[tuple[float, Tensor]]:
        """Return (weight of its loss, scores) of each auxiliary head.

        Raises:
            TrainingError: the network returns no tensor of that name.
        """
        found = named_tensors_of(output) if self.auxiliary else {}
        if missing := [name for name in self.auxiliary if name not in found]:
            raise TrainingError(
                f"the network returns {_described(output, found)} while it trains, and task.auxiliary reads "
                f"{missing[0]!r}: name heads that it has, or build it with them (torchvision: aux_loss: true)"
            )
        return [(weight, found[name]) for name, weight in self.auxiliary.items()]


def _described(output: Any, found: Mapping[str, Tensor]) -> str:
    """Return a description of a network's output: its type and its tensors."""
    if isinstance(output, Tensor):
        return "a tensor alone"
    names = f"the tensors {', '.join(found)}" if found else "no tensor"
    return f"a {type(output).__name__} with {names}"
