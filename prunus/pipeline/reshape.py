"""Edits as a recipe names them: settings that plan edits of whatever network they meet.

`prunus.pipeline.Expand` has the arguments of `prunus.expand` as its keys, with the same defaults, and so have the
others. One of your own is a frozen dataclass, subclass of `Reshaping`, named by its dotted path.
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
            EditError: the edits make no sense for this network, or at this place.
        """


class _Arguments(Reshaping):
    """Settings that are the arguments of `planner` behind the model."""

    planner: ClassVar[Callable[..., Plan]]

    def plan(self, model: nn.Module, inputs: Tensor) -> Plan:
        """Return the plan that `planner` makes."""
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
    """Settings of `prunus.linearize`, which has none: the ReLUs in expanded layers are taken out."""

    planner = staticmethod(linearize)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contract(_Arguments):
    """Settings of `prunus.contract`: linear layers in a row become one."""

    planner = staticmethod(contract)
    layers: Layers | None = None
