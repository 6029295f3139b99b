"""How a recipe names a network: a callable that builds the wide one, as often as it is asked."""

from typing import Protocol

from torch import nn


class ModelFactory(Protocol):
    """Builds a network for `num_classes`; in YAML the `class_path` and other `init_args` of a model."""

    def __call__(self, *, num_classes: int) -> nn.Module:
        """Build the network with fresh weights."""
        ...
