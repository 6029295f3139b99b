"""Read a network at another width: choose channels to remove, and check that the code does what the labels predict."""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from prunus.graph.build import build, numbering
from prunus.graph.compare import Mismatch, compare
from prunus.graph.findings import Findings, Mark
from prunus.graph.groups import ChannelGroups
from prunus.graph.size_attributes import count
from prunus.graph.slots import Attribute
from prunus.graph.walk import LabelledProgram, Slots, walk
from prunus.modules.cutting import Keep
from prunus.program import Place, ReadError, read

MOST_TRIED = 4  # groups per layer that `_vary_spared_layers` tries
LEAST = 2  # groups left per layer: along a dimension of size one, channels cannot be told from data


@dataclasses.dataclass(frozen=True, eq=False)
class TracedNetwork:
    """A network with its example, its labelled programs (in training too where it differs) and its tensors' ids."""

    model: nn.Module
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    programs: tuple[LabelledProgram, ...]
    slots: Slots

    def without(
        self, findings: Findings, alive: Tensor, bound: Iterable[Attribute]
    ) -> tuple[Mismatch | None, tuple[Mismatch, ...]]:
        """Read the network cut to the ids `alive`, bool [num_ids]; return the first mismatch, and the operations that
        take a number computed from the width."""
        keep = _keep(self.slots, alive)
        settings = {(*binding.key, count(binding.groups, alive)) for binding in bound}
        roots, changed = torch.from_numpy(findings.ids.classes()), list[Mismatch]()
        slots, again = {key: ids[alive[ids]] for key, ids in self.slots.items()}, findings.afresh(alive=alive)
        for labelled in self.programs:
            try:
                narrow = read(self.model, self.args, self.kwargs, keep=keep, settings=settings, like=labelled.program)
                wrong, computed = compare(labelled, walk(narrow, self.model, again, slots), alive, roots)
            except ReadError as error:
                reason = f"the code does not run at another width: {error.reason[:160]}"
                return Mismatch(reason, error.place), ()
            except (RuntimeError, ValueError, IndexError, TypeError) as error:  # a rule fails on the changed code
                return Mismatch(f"cannot be read at another width: {error}", Place()), ()
            if wrong is not None:
                return wrong, ()
            changed.extend(computed)
        return None, tuple(changed)


def _keep(slots: Slots, alive: Tensor) -> Keep:
    """Return the indices of each tensor that stay with the ids `alive`."""
    keep: dict[str, dict[int, Tensor]] = {}
    for (path, dim), ids in slots.items():
        if not bool(alive[ids].all()):
            keep.setdefault(path, {})[dim] = alive[ids].nonzero().flatten()
    return keep


def unequal_parts(sizes: Iterable[Mark]) -> list[list[Mark]]:
    """Return the hard-coded sizes of each operation that takes unequal parts."""
    parts = sorted((mark for mark in sizes if mark.unequal), key=lambda mark: mark.number)
    return [list(marks) for _, marks in itertools.groupby(parts, key=lambda mark: mark.number)]


def without_some(
    network: TracedNetwork, findings: Findings, spared_ids: Tensor, sizes: list[Mark], *, last: bool = False
) -> Tensor:
    """Remove one or two groups of every layer, and one of every hard-coded size; return the ids left, bool [num_ids].

    Where a dimension is split into unequal parts, every part but the last loses some channels; with `last`, every part
    but the first loses as many as it can, and no other layer loses any. Code that computes one part from another size
    cannot follow both trials. `spared_ids` stay.
    """
    group_of = numbering(findings)
    groups = build(network.model, findings, network.slots, [], ())
    padded = len(groups) + 1  # ids in no group have the number -1, the last entry
    spared = torch.zeros(padded, dtype=torch.bool)
    spared[group_of[spared_ids]] = True
    alive, alone = torch.ones(padded, dtype=torch.bool), torch.zeros(padded, dtype=torch.bool)
    candidates = groups.removable & ~spared[:-1]
    unequal = unequal_parts(sizes)
    for mark in itertools.chain.from_iterable(unequal):
        alone[group_of[mark.ids]] = True
    for layer in range(0 if last else len(groups.layer_names)):
        # One channel in one layer, two in the next: layers that are equally wide by chance get different widths.
        inside = (candidates & (groups.layers == layer) & ~alone[:-1]).nonzero().flatten()
        num = 1 + layer % 2 if inside.numel() > 8 else 1
        alive[inside[-num:]] = False
    parts = [(mark, marks) for marks in unequal for mark in ((marks[1:] if last else marks[:-1]) or marks)]
    for number, (mark, marks) in enumerate(parts):
        counted = torch.unique(group_of[mark.ids])
        inside = counted[(counted >= 0) & candidates[counted]]
        # A part beside others that stay loses all but one: `size // 4` does not change until few channels are left.
        larger = [slot.groups for slot in groups.slots if slot.groups.numel() > counted.numel()]
        part = len(marks) == 1 and any(bool(torch.isin(counted, whole).all()) for whole in larger)
        least = 0 if inside.numel() < counted.numel() else 1 if part or inside.numel() < 3 else 2
        num = (1 + number) % max(inside.numel() - 1, 2)  # a different number for each part, as far as possible
        alive[inside[least:] if last else inside[inside.numel() - num :]] = False
    for mark in [] if last else sizes:
        counted = group_of[mark.ids]
        inside = counted[(counted >= 0) & candidates[counted]]
        if inside.numel() and bool(alive[inside].all()) and not bool(alone[counted].any()):
            alive[inside[-1]] = False
    if _spare_narrow(groups, alive, whole=not last) and not last:
        _vary_spared_layers(groups, alive, candidates & ~alone[:-1])
    return alive[group_of]


def without_some_sizes(
    network: TracedNetwork, findings: Findings, spared_ids: Tensor, sizes: list[Mark]
) -> Iterator[Tensor]:
    """Yield trials that remove one group of some hard-coded sizes and nothing else. Some trial separates any two sizes,
    and any size from the rest: `width // 3` may shrink by one whether one channel of the width is removed or three.

    Sizes are numbered by their line and their channels there; trial b takes the sizes whose number has bit b set.
    """
    group_of, groups = numbering(findings), build(network.model, findings, network.slots, [], ())
    free = torch.cat([groups.removable, torch.tensor([False])])
    free[group_of[spared_ids]] = False
    numbers, seen = dict[tuple[str, int], int](), dict[tuple[str, str], dict[int, int]]()
    numbered = list[tuple[int, int]]()
    for mark in sizes:
        inside = group_of[mark.ids]
        inside = inside[free[inside]]
        if inside.numel() and not mark.unequal:
            alike = seen.setdefault((mark.module, mark.line), {})
            place = mark.line, alike.setdefault(int(inside[0]), len(alike))
            numbered.append((numbers.setdefault(place, len(numbers) + 1), int(inside[-1])))
    for bit in range(len(numbers).bit_length()):
        alive = torch.ones(len(groups) + 1, dtype=torch.bool)
        alive[[group for number, group in numbered if number >> bit & 1]] = False
        _spare_narrow(groups, alive, whole=True)
        if not bool(alive.all()):
            yield alive[group_of]


def without_most(network: TracedNetwork, findings: Findings, spared_ids: Tensor) -> Tensor:
    """Keep only two groups of every layer and tensor: code may branch on the width, as in `if x.shape[1] > 4`."""
    group_of, groups = numbering(findings), build(network.model, findings, network.slots, [], ())
    alive = torch.cat([groups.refused, torch.tensor([True])])
    alive[group_of[spared_ids]] = True
    for layer in range(len(groups.layer_names)):
        alive[(groups.layers == layer).nonzero().flatten()[:LEAST]] = True
    for slot in groups.slots:
        if torch.unique(slot.groups[alive[slot.groups]]).numel() < LEAST:
            alive[torch.unique(slot.groups)[:LEAST]] = True
    return alive[group_of]


def _spare_narrow(groups: ChannelGroups, alive: Tensor, *, whole: bool) -> bool:
    """Keep all channels of each tensor that would lose all, or (not `whole`) its first; return whether any would."""
    found = False
    for slot in groups.slots:
        if not bool(alive[slot.groups].any()):
            alive[slot.groups if whole else slot.groups[:1]] = found = True
    return found


def _vary_spared_layers(groups: ChannelGroups, alive: Tensor, candidates: Tensor) -> None:
    """Remove one of `candidates` from each layer that is complete again, unless a tensor would lose its last channel.

    Where channels of several layers are one group, sparing one layer spares the others, whose code must be tried too.
    """
    for layer in range(len(groups.layer_names)):
        inside = (candidates & (groups.layers == layer)).nonzero().flatten()
        if not bool(alive[inside].all()):
            continue
        for group in reversed(inside[-MOST_TRIED:].tolist()):
            alive[group] = False
            if all(bool(alive[slot.groups].any()) for slot in groups.slots):
                break
            alive[group] = True
