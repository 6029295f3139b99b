"""Sizes that code computes from the width of another tensor: `q.view(n, l, heads, x.shape[-1] // heads)`.

The channels of q can then only be removed with those of x, as in torch's own attention. They are united where that
makes them removable, unless the channels of x can be removed exactly on their own.
"""

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor

from prunus.graph.build import build, numbering
from prunus.graph.findings import Findings, Mark
from prunus.graph.ids import NONE, ChannelIds
from prunus.graph.other_width import TracedNetwork
from prunus.graph.walk import LabelledProgram
from prunus.program import Operation

MAX_SOURCES = 3  # tensors whose width is tried


def tied_widths(
    network: TracedNetwork, findings: Findings, ids: ChannelIds, sizes: list[Mark], blamed: list[Mark]
) -> Iterator[ChannelIds]:
    """Yield `ids` with the channels that a module's sizes count united with those of a tensor that it or a part takes.

    Args:
        network: the network.
        findings: the findings of its walk, without hard-coded sizes.
        ids: its channels, not changed here.
        sizes: the undecided hard-coded sizes.
        blamed: the sizes among them that do not follow; all sizes of their modules are united with the same source.
    """
    group_of = numbering(findings)
    exact = torch.cat([build(network.model, findings, network.slots, [], ()).exact, torch.tensor([False])])
    modules = {mark.module for mark in blamed}
    lines = {(mark.module, mark.line) for mark in sizes if mark.module in modules}
    places = list[tuple[list[Tensor], list[Tensor]]]()  # per module: axes that its sizes count, possible sources
    for labelled, module in itertools.product(network.programs, sorted(modules)):
        counted = [each for each in labelled.program.operations if (each.module, each.line) in lines]
        counted = [each for each in counted if each.module == module]
        if counted:
            sources = _taken(labelled, module, counted[0])
            places.append(
                (
                    _axes(labelled, counted),
                    [axis for axis in sources if not bool(exact[group_of[axis]].any())],
                )
            )
    for number in range(MAX_SOURCES):
        tied, before = ids.copy(), ids.classes()
        for made, sources in places:
            for axis, source in itertools.product(made, sources[number : number + 1]):
                if axis.numel() % source.numel() == 0:
                    tied.unite(axis, source.repeat(axis.numel() // source.numel()))
        if (tied.classes() != before).any():
            yield tied


def _taken(labelled: LabelledProgram, module: str, first: Operation) -> list[Tensor]:
    """Return the channels that a module takes, then those that its parts took before an operation, latest first."""
    passed = labelled.program.passed
    inner = [value for path, one in passed.items() if path != module and _within(path, module) for value in one.taken]
    before = [value for value in inner if value.maker is not None and value.maker.number < first.number]
    before.sort(key=lambda value: value.maker.number if value.maker else 0, reverse=True)
    found = dict[tuple[int, ...], Tensor]()
    for value in (*(passed[module].taken if module in passed else ()), *before):
        label = labelled.labels.get(value)
        for axis in label.axes.values() if label is not None else ():
            if bool((axis.ids != NONE).all()):
                found.setdefault(tuple(axis.ids.tolist()), axis.ids)
    return list(found.values())


def _axes(labelled: LabelledProgram, operations: list[Operation]) -> list[Tensor]:
    """Return the channels of all operands and results of some operations."""
    values = [value for each in operations for value in (*each.operands, *each.results)]
    axes = [axis.ids for value in values for axis in labelled.labels[value].axes.values()]
    return [ids for ids in axes if bool((ids != NONE).all())]


def _within(path: str, outer: str) -> bool:
    return not outer or path.startswith(f"{outer}.")
