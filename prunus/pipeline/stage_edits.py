"""The edits of a stage: planned for the network that enters it, applied one by one and measured."""

import dataclasses

from torch import Tensor, nn

from prunus.errors import EditError
from prunus.pipeline.network import Network
from prunus.pipeline.recipe import Stage
from prunus.pipeline.reshape import Reshaping
from prunus.surgery import Plan
from prunus.verify import apply_measured


def plan_edit(stage: Stage, number: int, model: nn.Module, inputs: Tensor) -> Plan:
    """Return the plan of the stage's edit `number` for `model`.

    Raises:
        EditError: the edit is impossible here; the message names the stage and the edit.
    """
    reshaping: Reshaping = stage.edits[number]
    try:
        return reshaping.plan(model, inputs)
    except EditError as error:
        place = f"stage {stage.name}, edits[{number}] ({type(reshaping).__name__})"
        raise EditError(f"{place}: {error}") from error


def apply_edits(network: Network, stage: Stage, inputs: Tensor) -> Network:
    """Return the network after the stage's edits.

    Raises:
        EditError: an edit is impossible here, or changes the output although it is exact.
    """
    for number in range(len(stage.edits)):
        plan = plan_edit(stage, number, network.model, inputs)
        model, records = apply_measured(network.model, plan, inputs)
        network = dataclasses.replace(network, model=model, plan=network.plan + plan, edits=(*network.edits, *records))
    return network
