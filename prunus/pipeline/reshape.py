"""Edits as a recipe names them: settings that plan edits of whatever network they meet.

A setting has the keys and the defaults of the function that plans: `prunus.pipeline.Expand` those of `prunus.expand`.
One of your own is a frozen dataclass, subclass of `Reshaping`, named by its dotted path.
"""

import abc
import dataclasses
import inspect
import typing
from collections.abc import Callable

from torch import Tensor, nn

from prunus.surgery import Plan, contract, decompose, expand, factorize, linearize


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reshaping(abc.ABC):
    """Settings of edits; a final subclass is a frozen dataclass."""

    @abc.abstractmethod
    def plan(self, model: nn.Module, inputs: Tensor) -> Plan:
        """Return the edits of `model`; `inputs` is an example [1, C, H, W].

        Raises:
            EditError: the edits make no sense for this network, or at this place.
        """


def settings_of(planner: Callable[..., Plan]) -> type[Reshaping]:
    """Return the settings whose fields are the arguments of `planner` behind the model, defaults included."""
    hints = typing.get_type_hints(planner)
    arguments = list(inspect.signature(planner).parameters.values())[1:]
    fields = [(one.name, hints[one.name], dataclasses.field(default=one.default)) for one in arguments]

    def plan(self: Reshaping, model: nn.Module, inputs: Tensor) -> Plan:
        return planner(model, **{one.name: getattr(self, one.name) for one in arguments})

    made = dataclasses.make_dataclass(
        planner.__name__.capitalize(),
        fields,
        bases=(Reshaping,),
        namespace={"plan": plan, "__module__": __name__, "__doc__": planner.__doc__},
        frozen=True,
        kw_only=True,
    )
    return typing.cast(type[Reshaping], made)


Decompose = settings_of(decompose)
Factorize = settings_of(factorize)
Expand = settings_of(expand)
Linearize = settings_of(linearize)
Contract = settings_of(contract)
