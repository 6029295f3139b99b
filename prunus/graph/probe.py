"""Sizes that the code writes down: run the user's own code on a narrower copy and see whether it follows.

A view to fixed sizes, a slice at a fixed position or a number that depends on a width cannot be judged from one graph.
So a few channels of every group are left out of a copy, attributes that count channels are set to what is left,
and the copy is read again: where its graph is the one that the labels predict, the code follows. Where it is not,
what the place writes down is refused, and the copy is made again without it.
"""

import dataclasses

import torch
from torch import Tensor

from prunus.graph.attributes import Binding, bindings
from prunus.graph.blame import channels_near, written_at
from prunus.graph.build import numbering
from prunus.graph.compare import Mismatch, Probe
from prunus.graph.findings import Findings, Kind, Mark
from prunus.graph.ids import NONE
from prunus.graph.trial import compared, keep_of, ran, unlike_parts, values, without_some

MAX_COMPARISONS = 6  # after so many everything that is still open is refused
MAX_ROUNDS = 30


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Marks without written-down sizes: each is proven right, or refused; and the attributes that must follow."""

    marks: list[Mark]
    bindings: tuple[Binding, ...]


def judge(probe: Probe, findings: Findings) -> Verdict:
    """Try the written-down sizes of `findings` out until what is not refused is proven."""
    written = [mark for mark in findings.marks if mark.kind is Kind.WRITTEN]
    marks = [mark for mark in findings.marks if mark.kind is not Kind.WRITTEN]
    bound = _joined(bindings(probe.model, written), findings)
    still = torch.zeros(findings.ids.count, dtype=torch.bool)  # ids that are left whole
    trier, proven = _Trier(probe, findings), list[Mark]()
    for _ in range(MAX_ROUNDS):
        marks, written, bound = _without_refused(findings, marks, written, bound)
        open_ = dataclasses.replace(findings, marks=marks)
        alive = without_some(probe, open_, still, written)
        wrong, changed = trier.outcome(alive, bound) if not bool(alive.all()) else (None, ())
        if wrong is None and not changed and unlike_parts(written):
            first, alive = alive, without_some(probe, open_, still, written, last=True)
            wrong, changed = trier.outcome(alive, bound)
            alive = alive & first if wrong is None and not changed else alive
        if wrong is None:
            proven += [mark for mark in written if not bool(alive[mark.ids].all())]
        if wrong is None and not changed:
            untried = [mark for mark in written if not any(mark is other for other in proven)]
            return Verdict(marks + _refused(untried, "nothing of it could be tried out"), tuple(bound))
        if wrong is not None:
            blamed = written_at(written, wrong) if trier.comparisons < MAX_COMPARISONS else written
            marks = [*marks, *_refused(blamed, wrong.reason)]
            if not blamed:  # nothing written down to blame: the channels that arrive there
                near = channels_near(probe, findings, wrong, alive)
                marks.append(Mark(near, wrong.told, Kind.REFUSED))
            written = [mark for mark in written if not any(mark is other for other in blamed)]
        for place in changed:
            near = channels_near(probe, findings, place, alive)
            marks = [*marks, Mark(near, place.told, Kind.APPROXIMATE)]
            still[near] = True
        roots = torch.from_numpy(findings.ids.classes())
        still = torch.isin(roots, roots[still])
    everything = torch.arange(1, findings.ids.count)
    return Verdict([*marks, Mark(everything, f"not settled in {MAX_ROUNDS} tries at other widths", Kind.REFUSED)], ())


class _Trier:
    """Runs narrower copies on shapes alone, and holds what they do against what the labels predict."""

    def __init__(self, probe: Probe, findings: Findings) -> None:
        self.probe, self.findings = probe, findings
        self.comparisons = 0
        self.runs_on_shapes = probe.on_shapes  # where it is not known, seen when something goes wrong there

    def outcome(self, alive: Tensor, bound: list[Binding]) -> tuple[Mismatch | None, tuple[Mismatch, ...]]:
        """Return what went wrong without the ids that are not alive, and the numbers that changed."""
        keep, settings = keep_of(self.probe.slots, alive), values(bound, alive)
        codes = [] if self.runs_on_shapes is False else ran(self.probe, keep, settings)
        if isinstance(codes, Mismatch):
            if self.runs_on_shapes is None:
                self.runs_on_shapes = not isinstance(ran(self.probe, {}, ()), Mismatch)
            if self.runs_on_shapes:
                return codes, ()
            codes = []
        self.comparisons += 1
        return compared(self.probe, self.findings, keep, settings, alive, codes)


def _joined(found: list[Binding], findings: Findings) -> list[Binding]:
    """One attribute counts one thing: where it is bound twice, what it counts goes together."""
    first: dict[tuple[str, str, int], Binding] = {}
    for binding in found:
        other = first.setdefault(binding.key, binding)
        findings.ids.unite(other.ids, binding.ids)
    return found


def _without_refused(
    findings: Findings, marks: list[Mark], written: list[Mark], bound: list[Binding]
) -> tuple[list[Mark], list[Mark], list[Binding]]:
    """Drop written sizes and attributes whose channels are refused altogether: nothing is to be tried there."""
    group_of = numbering(dataclasses.replace(findings, marks=[*marks, *written]))
    refused = torch.zeros(int(group_of.max()) + 2, dtype=torch.bool)
    for mark in marks:
        if mark.kind is Kind.REFUSED:
            refused[group_of[mark.ids]] = True
    refused[-1] = True

    def open_(ids: Tensor) -> bool:
        return not bool(refused[group_of[ids]].all())

    closed = [mark for mark in written if not open_(mark.ids)]
    kept = [mark for mark in written if open_(mark.ids)]
    # The reason still belongs to the channels, though another one decides.
    told = [dataclasses.replace(mark, kind=Kind.REFUSED, ids=mark.ids[mark.ids != NONE]) for mark in closed]
    return marks + told, kept, [binding for binding in bound if open_(binding.ids)]


def _refused(written: list[Mark], reason: str) -> list[Mark]:
    return [
        dataclasses.replace(mark, kind=Kind.REFUSED, ids=mark.ids[mark.ids != NONE], reason=f"{mark.reason}: {reason}")
        for mark in written
    ]
