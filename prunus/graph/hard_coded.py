"""Hard-coded sizes: run the user's own code on a narrower copy and see whether it follows.

A view to fixed sizes, a slice at a fixed position or a number that depends on a width cannot be judged from one width.
Therefore a copy loses a few channels of every layer, the attributes that count channels are set to the new counts, and
the copy is read again. Where the reading agrees with the labels, the size follows. Where it does not, the hard-coded
sizes at that place are refused, and the copy is made again without them.
"""

import dataclasses
import itertools

import torch

from prunus.graph.attempt import Attempt
from prunus.graph.findings import Findings, Kind, Mark
from prunus.graph.ids import NONE
from prunus.graph.mismatch_cause import channels_near, hard_coded_at
from prunus.graph.other_width import TracedNetwork
from prunus.graph.size_attributes import bindings
from prunus.graph.slots import Attribute
from prunus.graph.tied_widths import tied_widths

MAX_COMPARISONS = 6  # after that, every undecided size is refused
MAX_ROUNDS = 30
MAX_OTHERS = 4  # subsets of doubtful attributes to try


def judge(network: TracedNetwork, findings: Findings) -> tuple[Findings, list[Attribute]]:
    """Read the network at other widths until each hard-coded size is known to follow, or is refused.

    Returns the findings without hard-coded sizes, and the attributes that a cut must set.
    """
    attempt, proven = _first(network, findings), list[Mark]()
    for round_ in range(MAX_ROUNDS):
        alive, mismatch, changed = attempt.outcome
        if mismatch is None:
            proven += [mark for mark in attempt.open_sizes if not bool(alive[mark.ids].all())]
        if mismatch is None and not changed:
            untried = [mark for mark in attempt.open_sizes if mark not in proven]
            return attempt.refusing(untried, "no part of it could be tested").findings, attempt.open_bound
        near = [channels_near(network, attempt.findings, place, alive) for place in changed]
        if mismatch is not None:
            early = round_ < MAX_COMPARISONS
            blamed = hard_coded_at(attempt.open_sizes, mismatch) if early else attempt.open_sizes
            other = _with_fewer_attributes(attempt, blamed) or (_with_tied_widths(attempt, blamed) if early else None)
            if other is not None:
                attempt, proven = other, []
                continue
            if not blamed:  # no hard-coded size is at fault: refuse the channels that arrive there
                arriving = channels_near(network, attempt.findings, mismatch, alive)
                attempt = attempt.marking([Mark(arriving, Kind.REFUSED, mismatch.told)])
            attempt = attempt.refusing(blamed, mismatch.reason)
        approximate = [Mark(ids, Kind.APPROXIMATE, place.told) for ids, place in zip(near, changed, strict=True)]
        attempt = attempt.marking(approximate)
    everything = torch.arange(1, findings.ids.count)
    undecided = Mark(everything, Kind.REFUSED, f"undecided after {MAX_ROUNDS} tries at other widths")
    return attempt.marking([undecided]).findings, []


def _first(network: TracedNetwork, findings: Findings) -> Attempt:
    """Return the attempt in which every hard-coded size follows, by an attribute of equal value where there is one."""
    roots = torch.from_numpy(findings.ids.classes())
    held = roots[torch.cat([torch.tensor([NONE]), *network.slots.values()])]  # padding that meets no parameter is data
    sizes = [mark for mark in findings.marks if mark.kind is Kind.HARD_CODED]
    sizes = [mark for mark in sizes if bool(torch.isin(roots[mark.ids[mark.ids != NONE]], held).any())]
    marks = [mark for mark in findings.marks if mark.kind is not Kind.HARD_CODED]
    spared = torch.zeros(findings.ids.count, dtype=torch.bool)
    unjoined = dataclasses.replace(findings, marks=marks)
    return Attempt(network, unjoined, spared, sizes, bindings(network.model, sizes))


def _with_fewer_attributes(attempt: Attempt, blamed: list[Mark]) -> Attempt | None:
    """Return an attempt in which fewer attributes stand for the sizes `blamed` and the code follows: an attribute of
    equal value may count something else."""
    lines = {mark.line for mark in blamed}
    doubtful = {binding.key for binding in attempt.open_bound if binding.line in lines}
    names = sorted({key[1:] for key in doubtful})
    fewer = itertools.chain.from_iterable(itertools.combinations(names, num) for num in range(len(names)))
    for chosen in itertools.islice(fewer, MAX_OTHERS):
        bound = [each for each in attempt.bound if each.key not in doubtful or each.key[1:] in chosen]
        other = dataclasses.replace(attempt, bound=bound)
        if _follows(other, lines):
            return other
    return None


def _with_tied_widths(attempt: Attempt, blamed: list[Mark]) -> Attempt | None:
    """Return an attempt in which the sizes `blamed` count the channels of another tensor and the code follows."""
    lines = {mark.line for mark in blamed}
    for ids in tied_widths(attempt.network, attempt.findings, attempt.unjoined.ids, attempt.open_sizes, blamed):
        other = attempt.tying(ids)
        if other.tries(blamed) and _follows(other, lines):
            return other
    return None


def _follows(attempt: Attempt, lines: set[str]) -> bool:
    """Whether the hard-coded sizes on these lines follow."""
    mismatch = attempt.outcome.mismatch
    return mismatch is None or not any(mark.line in lines for mark in hard_coded_at(attempt.open_sizes, mismatch))
