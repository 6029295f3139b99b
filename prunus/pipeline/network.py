"""The networks of a run: what each is called, its plan, the edits and the training that led to it."""

import dataclasses

from torch import nn

from prunus.pipeline.recipe import JOINT, NARROW, Stage
from prunus.records import EditRecord
from prunus.surgery import Plan


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network:
    """A network that a run has come to.

    Attributes:
        name: in records, files and the report.
        model: the network.
        plan: leads to it from the network as built.
        edits: of the plan, with what each was measured to change.
        seconds: of all training that it took.
        records: that the run had when its last training ended.
    """

    name: str
    model: nn.Module
    plan: Plan = Plan()  # noqa: RUF009 - frozen
    edits: tuple[EditRecord, ...] = ()
    seconds: float = 0.0
    records: int = 0


def network_name(stages: tuple[Stage, ...], stage: Stage) -> str:
    """Return what the network is called that `stage` leads to: the last is the narrow one."""
    return NARROW if stage.name == stages[-1].name else stage.name


def training_name(stage: Stage) -> str:
    """Return what the stage's training is called."""
    return NARROW if stage.name == JOINT else stage.name
