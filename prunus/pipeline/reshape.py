"""Edits as a recipe names them: settings that plan edits of whatever network they meet.

`prunus.pipeline.Expand` has the arguments of `prunus.expand` as its keys, with the same defaults, and so have the
others. One of your own is a frozen dataclass, subclass of `Reshaping`, named by its dotted path.
"""

import abc
import dataclasses

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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decompose(Reshaping):
    """Settings of `prunus.decompose`: k x k convolutions become k x 1, then 1 x k."""

    layers: Layers = "k>1"
    rank: int | None = None
    energy: float | None = None
    width: int | None = None
    nonlinear: bool = False
    skip_first: int = 0
    seed: int = 0

    def plan(self, model: nn.Module, inputs: Tensor) -> Plan:
        """Return the plan of `prunus.decompose`."""
        return decompose(model, **vars(self))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Factorize(Reshaping):
    """Settings of `prunus.factorize`: layers of low rank become two."""

    layers: Layers = "*"
    rank: int | None = None
    energy: float | None = None
    scheme: str = "channel"
    skip_first: int = 0

    def plan(self, model: nn.Module, inputs: Tensor) -> Plan:
        """Return the plan of `prunus.factorize`."""
        return factorize(model, **vars(self))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Expand(Reshaping):
    """Settings of `prunus.expand`: layers become several linear ones in a row."""

    layers: Layers = "k>1"
    rate: float = 4
    kind: str = "auto"
    keep_function: bool = False
    nonlinear: bool = False
    skip_first: int = 0
    seed: int = 0

    def plan(self, model: nn.Module, inputs: Tensor) -> Plan:
        """Return the plan of `prunus.expand`."""
        return expand(model, **vars(self))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Linearize(Reshaping):
    """Settings of `prunus.linearize`, which has none: the ReLUs in expanded layers are taken out."""

    def plan(self, model: nn.Module, inputs: Tensor) -> Plan:
        """Return the plan of `prunus.linearize`."""
        return linearize(model)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contract(Reshaping):
    """Settings of `prunus.contract`: linear layers in a row become one."""

    layers: Layers | None = None

    def plan(self, model: nn.Module, inputs: Tensor) -> Plan:
        """Return the plan of `prunus.contract`."""
        return contract(model, self.layers)
