"""The decisions that a task makes from outputs, such as classes, where a network is compared with its exported file."""

from collections.abc import Mapping
from typing import Protocol

import torch


class Decisions(Protocol):
    """What a task makes of the outputs of a network and of its file, by name."""

    def comparable(
        self, first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor]
    ) -> tuple[Mapping[str, torch.Tensor], Mapping[str, torch.Tensor]]:
        """Return both so that they may be compared number by number."""
        ...

    def agreement(
        self, first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor]
    ) -> tuple[int, int] | None:
        """Return how many decisions agree, of how many; None: nothing is known of them."""
        ...
