"""Edits as a recipe names them: settings from which edits are planned for any network.

The keys of `prunus.pipeline.Expand` are the arguments of `prunus.expand`, with the same defaults, and likewise for the
others. For an edit of your own, write a frozen dataclass, subclass of `Reshaping`, and name it by its dotted path.
"""

import abc
import dataclasses
from collections.abc import Callable
from typing import ClassVar

from torch import Tensor, nn

from prunus.surgery import Plan, contract, decompose, expand, factorize, linearize
from prunus.surgery.choosing import Layers


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reshaping(abc.ABC):
    """Settings of edits; a final subclass is a frozen dataclass."""

    @abc.abstractmethod
    def plan(self, model: nn.Module, inputs: Tensor) -> Plan:
        """Return the edits of `model`; `inputs` is an example [1, C, H, W].

        Raises:
            EditError: the edits are impossible for this network, or at this point.
        """


class _Arguments(Reshaping):
    """Settings that are the arguments of `planner` after the model."""

    planner: ClassVar[Callable[..., Plan]]

    def plan(self, model: nn.Module, inputs: Tensor) -> Plan:
        """Return the plan from `planner`."""
        return self.planner(model, **vars(self))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decompose(_Arguments):
    """Settings of `prunus.decompose`: k x k convolutions become k x 1, then 1 x k."""

    planner = staticmethod(decompose)
    layers: Layers = "k>1"
    rank: int | None = None
    energy: float | None = None
    width: int | None = None
    nonlinear: bool = False
    skip_first: int = 0
    seed: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Factorize(_Arguments):
    """Settings of `prunus.factorize`: layers of low rank become two."""

    planner = staticmethod(factorize)
    layers: Layers = "*"
    rank: int | None = None
    energy: float | None = None
    scheme: str = "channel"
    skip_first: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Expand(_Arguments):
    """Settings of `prunus.expand`: layers become several linear ones in a row."""

    planner = staticmethod(expand)
    layers: Layers = "k>1"
    rate: float = 4
    kind: str = "auto"
    keep_function: bool = False
    nonlinear: bool = False
    skip_first: int = 0
    seed: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Linearize(_Arguments):
    """Remove the ReLUs in expanded layers; `prunus.linearize` has no settings."""

    planner = staticmethod(linearize)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contract(_Arguments):
    """Settings of `prunus.contract`: linear layers in a row become one."""

    planner = staticmethod(contract)
    layers: Layers | None = None
