"""Try a network out at another width: run a copy without some channels, and hold its graph against the labels."""

import itertools
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from prunus.errors import TraceError
from prunus.graph.attributes import Binding, count, set_
from prunus.graph.blame import place_of
from prunus.graph.build import build, numbering
from prunus.graph.compare import Mismatch, Probe, Reading, compare
from prunus.graph.export import export
from prunus.graph.findings import Findings, Mark
from prunus.graph.groups import ChannelGroups
from prunus.graph.program import flattened
from prunus.graph.record import Run, run
from prunus.graph.retrace import retraced
from prunus.graph.state import Slots
from prunus.graph.training import on
from prunus.graph.walk import walk
from prunus.modules.cutting import Keep, shaped


def unlike_parts(written: Iterable[Mark]) -> list[list[Mark]]:
    """Return the written-down sizes of each operator that takes unlike parts."""
    by_node: dict[int, list[Mark]] = {}
    for mark in written:
        if mark.unlike:
            by_node.setdefault(mark.number, []).append(mark)
    return list(by_node.values())


def without_some(
    probe: Probe, findings: Findings, still: Tensor, written: Iterable[Mark], *, last: bool = False
) -> Tensor:
    """Leave out one or two groups of every layer, and one of every written-down size; bool [num_ids].

    Of unlike parts of one dimension all but the last lose one channel, or (`last`) all but the first as many as they
    can: code that computes the parts from the whole cannot follow both.
    """
    group_of = numbering(findings)
    groups = build(probe.model, findings, probe.slots, [], ())
    spared = torch.zeros(len(groups) + 1, dtype=torch.bool)
    spared[group_of[still]] = True
    alive = torch.ones(len(groups) + 1, dtype=torch.bool)
    candidates = groups.removable & ~spared[:-1]
    unlike = unlike_parts(written)
    losing = [mark for marks in unlike for mark in ((marks[1:] if last else marks[:-1]) or marks)]
    alone = torch.zeros(len(groups) + 1, dtype=torch.bool)
    for mark in itertools.chain.from_iterable(unlike):
        alone[group_of[mark.ids]] = True
    for layer in range(len(groups.layer_names)):
        inside = (candidates & (groups.layers == layer) & ~alone[:-1]).nonzero().flatten()
        num = 1 + layer % 2 if inside.numel() > 8 else 1
        alive[inside[-num:]] = False
    for mark in losing:
        counted = torch.unique(group_of[mark.ids])
        inside = counted[(counted >= 0) & candidates[counted]]
        others = inside.numel() < counted.numel()  # which stay
        most = inside if others else inside[2 if inside.numel() > 2 else 1 :]  # one alone would have no channel axis
        alive[most if last else inside[-1:]] = False
    for mark in written:
        counted = group_of[mark.ids]
        inside = counted[(counted >= 0) & candidates[counted]]
        if inside.numel() and bool(alive[inside].all()) and not bool(alone[counted].any()):
            alive[inside[-1]] = False
    _spare_narrow(groups, alive)
    return alive[group_of]


def _spare_narrow(groups: ChannelGroups, alive: Tensor) -> None:
    """Leave tensors whole that would be left with nothing."""
    for slot in groups.slots:
        if not bool(alive[slot.groups].any()):
            alive[slot.groups] = True


def keep_of(slots: Slots, alive: Tensor) -> Keep:
    """Return the indices of each tensor that stay with the ids alive."""
    keep: dict[str, dict[int, Tensor]] = {}
    for (path, dim), ids in slots.items():
        if not bool(alive[ids].all()):
            keep.setdefault(path, {})[dim] = alive[ids].nonzero().flatten()
    return keep


Setting = tuple[str, str, int, int]  # path, name, item, value


def values(bound: Iterable[Binding], alive: Tensor) -> tuple[Setting, ...]:
    """Return what the attributes that count channels are with the ids alive."""
    return tuple({(*binding.key, count(binding.ids, alive)) for binding in bound})


def _copy(probe: Probe, keep: Keep, settings: Iterable[Setting], device: str | None) -> nn.Module:
    small = shaped(probe.model, keep, device)
    for path, name, item, value in settings:
        set_(small, path, name, item, value)
    return small


def ran(probe: Probe, keep: Keep, settings: Iterable[Setting]) -> list[Run] | Mismatch:
    """Run the narrower network on shapes alone, as each graph was read; return what it does, or where it fails."""
    runs, args, kwargs = list[Run](), on(probe.args, "meta"), on(probe.kwargs, "meta")
    for reading in probe.readings:
        small = _copy(probe, keep, settings, "meta")
        try:
            runs.append(run(small, args, kwargs, training=reading.training, shapes=probe.shapes))
        except Exception as error:  # whatever the user's own code raises at a width that it does not expect
            return place_of(error, small)
    return runs


def compared(
    probe: Probe, findings: Findings, keep: Keep, settings: Iterable[Setting], alive: Tensor, codes: list[Run]
) -> tuple[Mismatch | None, tuple[Mismatch, ...]]:
    """Read the network without the ids that are not alive; return what goes wrong, and the numbers that change.

    Its graphs are those of its runs on shapes alone where there are any, and exported where these do not tell.
    """
    roots = torch.from_numpy(findings.ids.classes())
    changed: list[Mismatch] = []
    small = _copy(probe, keep, settings, None)
    for reading, code in itertools.zip_longest(probe.readings, codes):
        try:
            program = retraced(reading.program, code) if code is not None else None
            if program is None:
                program = flattened(export(small, probe.args, probe.kwargs, training=reading.training))
            slots = {key: ids[alive[ids]] for key, ids in probe.slots.items()}
            again = findings.afresh()
            narrow = Reading(program, walk(program, small, again, slots), reading.training, again.macs)
        except TraceError as error:
            return place_of(error.__cause__ or error, small), ()
        except (RuntimeError, ValueError, IndexError, TypeError) as error:  # a rule that the changed graph upsets
            return Mismatch(f"cannot be read at another width: {error}", "", ""), ()
        result = compare(reading, narrow, alive, roots)
        if result.mismatch is not None:
            return result.mismatch, ()
        changed.extend(result.changed)
    return None, tuple(changed)
