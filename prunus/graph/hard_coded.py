"""Hard-coded sizes: run the user's own code on a narrower copy and see whether it follows.

A view to fixed sizes, a slice at a fixed position or a number that depends on a width cannot be judged from one width.
So a few channels of every group are left out of a copy, attributes that count channels are set to what is left,
and the copy is read again: where it does what the labels predict, the code follows. Where it does not, what is
hard-coded at the place is refused, and the copy is made again without it.
"""

import dataclasses
import itertools

import torch
from torch import Tensor

from prunus.graph.build import numbering
from prunus.graph.compare import Mismatch
from prunus.graph.findings import Findings, Kind, Mark
from prunus.graph.ids import NONE, ChannelIds
from prunus.graph.mismatch_cause import channels_near, hard_coded_at
from prunus.graph.other_width import (
    TracedNetwork,
    unequal_parts,
    without_most,
    without_some,
    without_some_sizes,
)
from prunus.graph.size_attributes import bindings
from prunus.graph.slots import Attribute
from prunus.graph.tied_widths import tied_widths

MAX_COMPARISONS = 6  # then every size that is not decided is refused
MAX_ROUNDS = 30
MAX_OTHERS = 4  # sets of attributes that are tried in place of one that is wrong


def judge(network: TracedNetwork, findings: Findings) -> tuple[list[Mark], list[Attribute]]:
    """Try the network at other widths until each hard-coded size has been seen to follow, or is refused.

    Returns the marks without those of hard-coded sizes, and the attributes that must follow a cut.
    """
    roots = torch.from_numpy(findings.ids.classes())
    held = roots[torch.cat([torch.tensor([NONE]), *network.slots.values()])]  # zeros that meet no parameter are data
    sizes = [mark for mark in findings.marks if mark.kind is Kind.HARD_CODED]
    sizes = [mark for mark in sizes if bool(torch.isin(roots[mark.ids[mark.ids != NONE]], held).any())]
    marks = [mark for mark in findings.marks if mark.kind is not Kind.HARD_CODED]
    unjoined, bound = findings.ids, bindings(network.model, sizes)
    spared = torch.zeros(findings.ids.count, dtype=torch.bool)  # ids that no trial leaves out
    proven = list[Mark]()
    for round_ in range(MAX_ROUNDS):
        findings.ids = _joined(bound, unjoined)
        sizes, bound = _without_refused(findings, marks, sizes, bound)
        now = dataclasses.replace(findings, marks=marks)
        alive, mismatch, changed = _try_without_some(network, now, spared, sizes, bound)
        if mismatch is None:
            proven += [mark for mark in sizes if not bool(alive[mark.ids].all())]
        if mismatch is None and not changed:
            untried = [mark for mark in sizes if mark not in proven]
            return marks + _refused(untried, "nothing of it could be tried out"), bound
        if mismatch is not None:
            blamed = hard_coded_at(sizes, mismatch) if round_ < MAX_COMPARISONS else sizes
            if (other := _with_fewer_attributes(network, now, unjoined, spared, sizes, bound, blamed)) is not None:
                bound, proven = other, []
                continue
            tied = _with_tied_widths(network, now, unjoined, spared, sizes, bound, blamed)
            if round_ < MAX_COMPARISONS and tied is not None:
                unjoined, proven = tied, []
                continue
            marks = [*marks, *_refused(blamed, mismatch.reason)]
            if not blamed:  # nothing hard-coded to blame: the channels that arrive there
                near = channels_near(network, findings, mismatch, alive)
                marks.append(Mark(near, Kind.REFUSED, mismatch.told))
            sizes = [mark for mark in sizes if mark not in blamed]
        for place in changed:
            near = channels_near(network, findings, place, alive)
            marks = [*marks, Mark(near, Kind.APPROXIMATE, place.told)]
            spared[near] = True
        roots = torch.from_numpy(findings.ids.classes())
        spared = torch.isin(roots, roots[spared])
    everything = torch.arange(1, findings.ids.count)
    reason = f"not decided in {MAX_ROUNDS} tries at other widths"
    return [*marks, Mark(everything, Kind.REFUSED, reason)], []


def _try_without_some(
    network: TracedNetwork, findings: Findings, spared: Tensor, sizes: list[Mark], bound: list[Attribute]
) -> tuple[Tensor, Mismatch | None, tuple[Mismatch, ...]]:
    """Leave some channels out, several times where sizes are hard-coded; return the ids alive, what went wrong, what
    changed."""
    alive = without_some(network, findings, spared, sizes)
    mismatch, changed = network.without(findings, alive, bound) if not bool(alive.all()) else (None, ())
    if mismatch is None and not changed and unequal_parts(sizes):
        first, alive = alive, without_some(network, findings, spared, sizes, last=True)
        mismatch, changed = network.without(findings, alive, bound)
        alive = alive & first if mismatch is None and not changed else alive
    if mismatch is not None or changed:
        return alive, mismatch, changed
    for other in (*without_some_sizes(network, findings, spared, sizes), without_most(network, findings, spared)):
        mismatch, changed = network.without(findings, other, bound)
        if mismatch is not None or changed:
            return other, mismatch, changed
    return alive, None, ()


def _joined(found: list[Attribute], unjoined: ChannelIds) -> ChannelIds:
    """One attribute counts one thing: where it is bound twice, what it counts goes together."""
    first: dict[tuple[str, str, int], Attribute] = {}
    ids = unjoined.copy()
    for binding in found:
        ids.unite(first.setdefault(binding.key, binding).groups, binding.groups)
    return ids


def _with_fewer_attributes(
    network: TracedNetwork,
    findings: Findings,
    unjoined: ChannelIds,
    spared: Tensor,
    sizes: list[Mark],
    bound: list[Attribute],
    blamed: list[Mark],
) -> list[Attribute] | None:
    """Return fewer of the attributes that were taken for the sizes `blamed`, or none of them, where the code runs so:
    an equal one may count something else."""
    lines = {mark.line for mark in blamed}
    doubtful = {binding.key for binding in bound if binding.line in lines}
    names = sorted({key[1:] for key in doubtful})
    fewer = itertools.chain.from_iterable(itertools.combinations(names, num) for num in range(len(names)))
    for chosen in itertools.islice(fewer, MAX_OTHERS):
        other = [binding for binding in bound if binding.key not in doubtful or binding.key[1:] in chosen]
        mismatch = _try_without_some(
            network, dataclasses.replace(findings, ids=_joined(other, unjoined)), spared, sizes, other
        )[1]
        if mismatch is None or not any(mark.line in lines for mark in hard_coded_at(sizes, mismatch)):
            return other
    return None


def _with_tied_widths(
    network: TracedNetwork,
    findings: Findings,
    unjoined: ChannelIds,
    spared: Tensor,
    sizes: list[Mark],
    bound: list[Attribute],
    blamed: list[Mark],
) -> ChannelIds | None:
    """Return ids in which the sizes `blamed` count the channels of another tensor, where the code runs so."""
    lines = {mark.line for mark in blamed}
    for ids in tied_widths(network, findings, unjoined, sizes, blamed):
        trial = dataclasses.replace(findings, ids=_joined(bound, ids))
        alive, mismatch, _ = _try_without_some(network, trial, spared, sizes, bound)
        tried = any(not bool(alive[mark.ids].all()) for mark in blamed)
        if tried and (mismatch is None or not any(mark.line in lines for mark in hard_coded_at(sizes, mismatch))):
            return ids
    return None


def _without_refused(
    findings: Findings, marks: list[Mark], sizes: list[Mark], bound: list[Attribute]
) -> tuple[list[Mark], list[Attribute]]:
    """Drop sizes and attributes whose channels are refused altogether: nothing is to be tried there."""
    group_of = numbering(dataclasses.replace(findings, marks=[*marks, *sizes]))
    refused = torch.zeros(int(group_of.max()) + 2, dtype=torch.bool)
    for mark in marks:
        if mark.kind is Kind.REFUSED:
            refused[group_of[mark.ids]] = True
    refused[-1] = True

    def open_(ids: Tensor) -> bool:
        return not bool(refused[group_of[ids]].all())

    return [mark for mark in sizes if open_(mark.ids)], [binding for binding in bound if open_(binding.groups)]


def _refused(sizes: list[Mark], reason: str) -> list[Mark]:
    return [
        dataclasses.replace(mark, kind=Kind.REFUSED, ids=mark.ids[mark.ids != NONE], reason=f"{mark.reason}: {reason}")
        for mark in sizes
    ]
