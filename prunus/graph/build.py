"""Build the channel groups: number the classes of ids, and collect the findings about each."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from prunus.graph.cost import CostModel, Term
from prunus.graph.findings import REASONED, Findings, Kind
from prunus.graph.groups import ChannelGroups
from prunus.graph.ids import NONE
from prunus.graph.noted_widths import Mode, noted_widths
from prunus.graph.slots import Attribute, Reason, Role, Slot, whole
from prunus.graph.walk import Slots
from prunus.modules.kinds import LinearLayer, TransposedConv
from prunus.modules.ties import canonical_paths

CHANNEL = (*REASONED, Kind.CONTRACTED)  # an id with one of these marks is a channel
KINDS = (Role.PRODUCER, Role.CONSUMER, Role.STATISTIC)
ROLES = {  # the role that a mark gives a tensor's dimension; a later mark overrides an earlier one
    Kind.CONSUMED: Role.CONSUMER,
    Kind.STATISTIC: Role.STATISTIC,
    Kind.PRODUCED: Role.PRODUCER,
    Kind.ZEROED: Role.PRODUCER,
}


def build(
    model: nn.Module,
    findings: Findings,
    slots: Slots,
    macs: Sequence[Term],
    notes: tuple[str, ...],
    bound: Iterable[Attribute] = (),
    passed: Iterable[Mode] = (),
) -> ChannelGroups:
    """Return the groups of `findings`: the classes of ids that are channels.

    `bound` are attributes that follow a cut; `passed` are the channels that modules take and return, mode by mode.
    """
    group_of = numbering(findings)
    count = int(group_of.max()) + 1
    found = _slots(model, slots, findings, group_of)
    refused, approximate = torch.zeros(count, dtype=torch.bool), torch.zeros(count, dtype=torch.bool)
    told = []
    for text, is_refusal, ids in _by_reason(findings):
        groups = torch.unique(group_of[ids])
        groups = groups[groups >= 0]
        (refused if is_refusal else approximate)[groups] = True
        told.append(Reason(text, groups, is_refusal))
    layers, names = _layers(found, count)
    positions = torch.unique(group_of[findings.ids_of(Kind.POSITION)])
    for text, groups in (
        *whole(found),
        *_beside_unread(model, found),
        ("no parameter produces this channel", (layers < 0).nonzero().flatten()),
        ("it is a kernel position, not a channel", positions[positions >= 0]),
    ):
        refused[groups] = True
        told.append(Reason(text, groups, True))
    cost = CostModel(tuple(term.mapped(group_of.__getitem__) for term in macs), _params(model, found))
    attributes = tuple({b.key: dataclasses.replace(b, groups=group_of[b.groups]) for b in bound}.values())
    modes = [{path: each.grouped(group_of) for path, each in mode.items()} for mode in passed]
    noted = noted_widths(model, found, modes, attributes) if modes else ()
    return ChannelGroups(
        found,
        ~refused & ~approximate,
        refused,
        layers,
        names,
        tuple(told),
        cost,
        attributes,
        noted,
        notes=(*notes, *_unread(model, slots, group_of)),
    )


def _by_reason(findings: Findings) -> Iterator[tuple[str, bool, Tensor]]:
    """Yield each reason once: its text, whether it refuses, and all ids that it applies to."""
    found: dict[tuple[str, bool], list[Tensor]] = {}
    for mark in findings.marks:
        if mark.kind in REASONED:
            found.setdefault((mark.reason, mark.kind is not Kind.APPROXIMATE), []).append(mark.ids)
    for (text, refused), ids in found.items():
        yield text, refused, torch.cat(ids)


def numbering(findings: Findings) -> Tensor:
    """Return the group number of each id, -1 where it is not a channel: int [count]."""
    roots = findings.ids.classes()
    channel = np.zeros(findings.ids.count, dtype=bool)
    channel[roots[findings.ids_of(*CHANNEL).numpy()]] = True
    channel[NONE] = False
    numbers = np.where(channel, np.cumsum(channel) - 1, -1)
    return torch.from_numpy(numbers[roots])


def _slots(model: nn.Module, slots: Slots, findings: Findings, group_of: Tensor) -> tuple[Slot, ...]:
    """Return the slots: a weight's contracted dimension consumes channels, statistics go along, all others produce.

    A buffer is not trained: it counts as a statistic, unless it must be zero for the channel to be zero.
    """
    roles = torch.zeros(findings.ids.count, dtype=torch.long)
    buffers = dict(model.named_buffers())
    for kind, role in ROLES.items():
        roles[findings.ids_of(kind)] = KINDS.index(role)
        if kind is Kind.PRODUCED:
            for ids in (ids for (path, _), ids in slots.items() if path in buffers):
                roles[ids] = KINDS.index(Role.STATISTIC)
    order = {path: position for position, path in enumerate(canonical_paths(model).values())}
    found = []
    for (path, dim), ids in sorted(slots.items(), key=lambda item: (order[item[0][0]], item[0][1])):
        groups = group_of[ids]
        if bool((groups >= 0).any()):
            found.append(Slot(path, dim, KINDS[int(roles[ids].max())], groups))
    return tuple(found)


def _unread(model: nn.Module, slots: Slots, group_of: Tensor) -> Iterator[str]:
    """Yield a note on the layers that are in no group, so that none is left out without a word."""
    names = list[str]()
    for (path, dim), ids in slots.items():
        name, _, tensor = path.rpartition(".")
        module = model.get_submodule(name)
        makes = isinstance(module, LinearLayer) and tensor == "weight" and dim == isinstance(module, TransposedConv)
        if makes and not bool((group_of[ids] >= 0).any()):
            names.append(name)
    if names:
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        yield (
            f"No weight reads the channels of {', '.join(names[:5])}{more}: the code leaves them unused, or only sums, "
            "compares or takes norms of them. They stay as they are."
        )


def _beside_unread(model: nn.Module, slots: tuple[Slot, ...]) -> Iterator[tuple[str, Tensor]]:
    """Yield the groups of a weight whose bias no code reads: no operator relates the sizes of the two."""
    known = {slot.path for slot in slots}
    for slot in slots:
        path, module = f"{slot.module}.bias".lstrip("."), model.get_submodule(slot.module)
        bias = getattr(module, "bias", None) if slot.path.endswith("weight") else None
        makes = slot.dim == isinstance(module, TransposedConv)
        if makes and path not in known and isinstance(bias, nn.Parameter) and bias.shape == slot.groups.shape:
            yield f"{path} is not read, and would keep its size", torch.unique(slot.groups[slot.groups >= 0])


def _layers(slots: tuple[Slot, ...], count: int) -> tuple[Tensor, tuple[str, ...]]:
    """Return the number of the first layer that makes each group, -1 where none does, and the layers' names.

    Dimensions that make channels beside a layer's first (the positions of a kernel that code computes with) come last.
    """
    makers = [slot for slot in slots if slot.role is Role.PRODUCER]
    first = {slot.layer: slot for slot in reversed(makers)}
    others = [slot for slot in makers if first[slot.layer] is not slot]
    layers, names = torch.full((count,), -1), list[str]()
    for slot in (*reversed(first.values()), *others):
        inside = slot.groups[slot.groups >= 0]
        fresh = inside[layers[inside] < 0]
        if fresh.numel():
            layers[fresh] = len(names)
            names.append(slot.layer if first[slot.layer] is slot else f"{slot.layer}, dimension {slot.dim}")
    return layers, tuple(names)


def _params(model: nn.Module, slots: tuple[Slot, ...]) -> tuple[Term, ...]:
    by_path: dict[str, dict[int, Tensor]] = {}
    for slot in slots:
        by_path.setdefault(slot.path, {})[slot.dim] = slot.groups
    terms = []
    for path, parameter in model.named_parameters():
        vectors = by_path.get(path, {})
        fixed = int(np.prod([size for dim, size in enumerate(parameter.shape) if dim not in vectors], dtype=np.int64))
        terms.append(Term(path.rpartition(".")[0], fixed, tuple(vectors.values())))
    return tuple(terms)
