"""Attempt: assumptions on a network's hard-coded sizes, tested by running its code at other widths."""

import dataclasses
import functools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from prunus.graph.build import numbering
from prunus.graph.compare import Mismatch
from prunus.graph.findings import Findings, Kind, Mark
from prunus.graph.ids import NONE, ChannelIds
from prunus.graph.other_width import TracedNetwork, unequal_parts, without_most, without_some, without_some_sizes
from prunus.graph.slots import Attribute


class Outcome(NamedTuple):
    """Result of a trial: the ids it kept, bool [num_ids], the first mismatch, the computed numbers that changed."""

    alive: Tensor
    mismatch: Mismatch | None
    changed: tuple[Mismatch, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Attempt:
    """Assumptions on which hard-coded sizes follow a cut, by which attributes, and which channels go together.

    Attributes:
        network: the network under test.
        unjoined: findings of its walk without hard-coded sizes, before channels of one attribute are joined.
        spared: bool [num_ids], ids that every trial keeps.
        sizes: the hard-coded sizes assumed to follow.
        bound: the attributes assumed to count channels.
    """

    network: TracedNetwork
    unjoined: Findings
    spared: Tensor
    sizes: list[Mark]
    bound: list[Attribute]

    @functools.cached_property
    def findings(self) -> Findings:
        """Findings in which the channels that one attribute counts in several places are joined."""
        first: dict[tuple[str, str, int], Attribute] = {}
        ids = self.unjoined.ids.copy()
        for binding in self.bound:
            ids.unite(first.setdefault(binding.key, binding).groups, binding.groups)
        return dataclasses.replace(self.unjoined, ids=ids)

    @functools.cached_property
    def outcome(self) -> Outcome:
        """Result of the first trial that fails or changes a number, else of the first trials; computed once."""
        for alive in self._trials():
            if not bool(alive.all()) and not _is_plain(found := self._without(alive)):
                return found
        return Outcome(functools.reduce(torch.logical_and, self._first_trials), None, ())

    def _trials(self) -> Iterator[Tensor]:
        """Yield the ids that each trial keeps, bool [num_ids]."""
        tested = self.network, self.findings, self.spared
        yield from self._first_trials
        yield from without_some_sizes(*tested, self.open_sizes)
        yield without_most(*tested)

    @functools.cached_property
    def _first_trials(self) -> list[Tensor]:
        tested, unequal = (self.network, self.findings, self.spared, self.open_sizes), unequal_parts(self.open_sizes)
        return [without_some(*tested, last=last) for last in ((False, True) if unequal else (False,))]

    def tries(self, sizes: Iterable[Mark]) -> bool:
        """Whether the first trials remove a channel that any of `sizes` counts."""
        return any(not bool(alive[mark.ids].all()) for mark in sizes for alive in self._first_trials)

    def _without(self, alive: Tensor) -> Outcome:
        return Outcome(alive, *self.network.without(self.findings, alive, self.open_bound))

    @functools.cached_property
    def _refused(self) -> tuple[Tensor, Tensor]:
        """Group of each id, int [num_ids], and whether a group is refused, bool [num_groups + 1]; the last is none."""
        group_of = numbering(dataclasses.replace(self.findings, marks=[*self.findings.marks, *self.sizes]))
        refused = torch.zeros(int(group_of.max()) + 2, dtype=torch.bool)
        for mark in self.findings.marks:
            if mark.kind is Kind.REFUSED:
                refused[group_of[mark.ids]] = True
        refused[-1] = True
        return group_of, refused

    def _is_open(self, ids: Tensor) -> bool:
        group_of, refused = self._refused
        return not bool(refused[group_of[ids]].all())

    @functools.cached_property
    def open_sizes(self) -> list[Mark]:
        """The sizes that count a channel which is not refused; the others need no trial."""
        return [mark for mark in self.sizes if self._is_open(mark.ids)]

    @functools.cached_property
    def open_bound(self) -> list[Attribute]:
        """The attributes that count a channel which is not refused; the others keep their values."""
        return [binding for binding in self.bound if self._is_open(binding.groups)]

    def refusing(self, sizes: list[Mark], reason: str) -> "Attempt":
        """Return the attempt in which the channels that `sizes` count are refused."""
        refused = [
            dataclasses.replace(
                mark, kind=Kind.REFUSED, ids=mark.ids[mark.ids != NONE], reason=f"{mark.reason}: {reason}"
            )
            for mark in sizes
        ]
        left = [mark for mark in self.sizes if mark not in sizes]
        return dataclasses.replace(self.marking(refused), sizes=left)

    def marking(self, marks: Iterable[Mark]) -> "Attempt":
        """Return the attempt with `marks` added; channels marked approximate are spared."""
        marks, spared = list(marks), self.spared.clone()
        for mark in marks:
            if mark.kind is Kind.APPROXIMATE:
                spared[mark.ids] = True
        roots = torch.from_numpy(self.findings.ids.classes())
        spared = torch.isin(roots, roots[spared])
        unjoined = dataclasses.replace(self.unjoined, marks=[*self.unjoined.marks, *marks])
        return dataclasses.replace(self, unjoined=unjoined, spared=spared)

    def tying(self, ids: ChannelIds) -> "Attempt":
        """Return the attempt with the channels `ids`, in which more channels are joined."""
        return dataclasses.replace(self, unjoined=dataclasses.replace(self.unjoined, ids=ids))


def _is_plain(outcome: Outcome) -> bool:
    return outcome.mismatch is None and not outcome.changed
