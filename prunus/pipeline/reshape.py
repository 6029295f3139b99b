"""Edits in a recipe: settings that plan edits for whatever network they meet.

The settings of an edit have the keys and the defaults of the function that plans it: `prunus.pipeline.Expand` those of
`prunus.expand`. One of your own is a frozen dataclass, subclass of `Reshaping`, named by its dotted path.
"""

import abc
import dataclasses
from collections.abc import Callable
from typing import ClassVar

from torch import Tensor, nn

from prunus.surgery import Plan, contract, decompose, expand, factorize, linearize
from prunus.surgery.layers import Layers


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reshaping(abc.ABC):
    """Settings of edits; a final subclass is a frozen dataclass."""

    @abc.abstractmethod
    def plan(self, model: nn.Module, inputs: Tensor) -> Plan:
        """Return the edits of `model`; `inputs` is an example [1, C, H, W].

        Raises:
            EditError: the edits are impossible for this network, or at this place.
        """


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Planned(Reshaping):
    """Settings that are the arguments of a function behind the model."""

    planner: ClassVar[Callable[..., Plan]]

    def plan(self, model: nn.Module, inputs: Tensor) -> Plan:
        """Return the plan of the function with these settings."""
        return type(self).planner(model, **vars(self))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decompose(_Planned):
    """The settings of `prunus.decompose`."""

    planner = staticmethod(decompose)
    layers: Layers = "k>1"
    rank: int | None = None
    energy: float | None = None
    width: int | None = None
    nonlinear: bool = False
    skip_first: int = 0
    seed: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Factorize(_Planned):
    """The settings of `prunus.factorize`."""

    planner = staticmethod(factorize)
    layers: Layers = "*"
    rank: int | None = None
    energy: float | None = None
    scheme: str = "channel"
    skip_first: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Expand(_Planned):
    """The settings of `prunus.expand`."""

    planner = staticmethod(expand)
    layers: Layers = "k>1"
    rate: float = 4
    kind: str = "auto"
    keep_function: bool = False
    nonlinear: bool = False
    skip_first: int = 0
    seed: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Linearize(_Planned):
    """The settings of `prunus.linearize`."""

    planner = staticmethod(linearize)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contract(_Planned):
    """The settings of `prunus.contract`."""

    planner = staticmethod(contract)
    layers: Layers | None = None
