"""A network of a run: its name, its plan, and the edits and training that led to it."""

import dataclasses

from torch import nn

from prunus.budget import Budget
from prunus.budget.family import budget_name
from prunus.pipeline.recipe import JOINT, NARROW, Stage
from prunus.records import EditRecord
from prunus.surgery import Plan


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network:
    """A network that a run has produced.

    Attributes:
        name: its name in records, files and the report.
        model: the network.
        plan: the edits from the network as built to this one.
        edits: records of the plan's edits, each with the measured change of the output.
        seconds: total training time.
        records: number of the run's records when the network's last training ended.
    """

    name: str
    model: nn.Module
    plan: Plan = Plan()  # noqa: RUF009 - frozen
    edits: tuple[EditRecord, ...] = ()
    seconds: float = 0.0
    records: int = 0


def network_name(stages: tuple[Stage, ...], stage: Stage) -> str:
    """Return the name of the network that `stage` produces; the last stage produces the narrow network."""
    return NARROW if stage.name == stages[-1].name else stage.name


def training_name(stage: Stage) -> str:
    """Return the name of the stage's training in records and checkpoints."""
    return NARROW if stage.name == JOINT else stage.name


def branch_name(budget: Budget) -> str:
    """Return the name of the network, and of its training, that branches off when `budget` is met."""
    return f"{NARROW}-{budget_name(budget)}"
