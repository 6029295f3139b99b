"""The networks of a family: each against its budget and against the wide network."""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from prunus.records import FamilyRecord
from prunus.report.comparison import Comparison, Goal, compare, goals
from prunus.report.facts import Facts

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Member:
    """One network of a family."""

    model: str
    rows: tuple[Comparison, ...]  # as in the headline, with this network in place of the narrow one
    goals: tuple[Goal, ...]
    begun: int | None  # epochs of the trunk when this network branched off; None: the trunk itself
    own_seconds: float  # training time from there on


def members(facts: Facts) -> tuple[Member, ...]:
    """Return the networks of the family, the largest first."""
    return tuple(_member(facts, record) for record in facts.family)


def training_seconds(facts: Facts) -> float:
    """Return the training seconds of the whole family."""
    return sum(member.own_seconds for member in members(facts))


def _member(facts: Facts, record: FamilyRecord) -> Member:
    model, epochs = record.model, facts.epochs.get(record.model, ())
    view = _as_narrow(facts, model)
    begun = epochs[0].epoch - 1 if epochs and model != "narrow" else None
    return Member(
        model=model,
        rows=compare(view),
        goals=goals(_on_target(view, record.target), record.budget),
        begun=begun,
        own_seconds=sum(epoch.seconds for epoch in epochs),
    )


def _on_target(facts: Facts, target: Mapping[str, Any]) -> Facts:
    """Return the facts with only the latencies on `target`; an empty target keeps all."""
    kept = {s: found for s, found in facts.latencies.items() if all(vars(s).get(k) == v for k, v in target.items())}
    return dataclasses.replace(facts, latencies=kept)


def _as_narrow(facts: Facts, model: str) -> Facts:
    """Return the facts with `model` in place of the narrow network."""

    def put(found: dict[str, T]) -> dict[str, T]:
        rest = {name: value for name, value in found.items() if name != "narrow"}
        return rest | ({"narrow": found[model]} if model in found else {})

    return dataclasses.replace(
        facts,
        epochs=put(facts.epochs),
        evaluations=put(facts.evaluations),
        latencies={setting: put(found) for setting, found in facts.latencies.items()},
    )
