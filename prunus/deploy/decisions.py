"""The decisions that a task makes from outputs, such as classes, to compare a network with its exported file."""

from collections.abc import Mapping
from typing import Protocol

import torch


class Decisions(Protocol):
    """How a task interprets the named outputs of a network and of its file."""

    def comparable(
        self, first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor]
    ) -> tuple[Mapping[str, torch.Tensor], Mapping[str, torch.Tensor]]:
        """Return both in an order in which they can be compared number by number."""
        ...

    def agreement(
        self, first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor]
    ) -> tuple[int, int] | None:
        """Return the number of decisions that agree and the number of all; None if the task does not count them."""
        ...
