"""Noted widths: numbers that count channels and that no code reads while the network runs, such as `num_features`.

The meaning of such a number follows from its place and its name (`prunus.modules.noted_numbers`). The first convention
that fits determines which dimensions it may count:

- a number beside the path of a module (timm's `feature_info`): the channels that the module returns;
- an attribute named after its module's inputs or outputs: their channels, or else those that the layers before the
  module's output read, the nearest first (`num_features` counts the inputs of a classifier);
- any other number, and those of a configuration: every dimension of this size in the module.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from prunus.graph.slots import Attribute, NotedWidth, Slot
from prunus.graph.walk import LabelledProgram
from prunus.modules.noted_numbers import Meaning, NotedNumber, noted_numbers
from prunus.modules.tensors import named_tensors
from prunus.program import Value

Vectors = list[list[Tensor]]  # for each tensor, the channels along each of its dimensions


@dataclasses.dataclass(frozen=True)
class PassedChannels:
    """The channels that a module takes and returns, as ids or as groups."""

    taken: Vectors
    returned: Vectors

    def grouped(self, group_of: Tensor) -> "PassedChannels":
        """Return the same channels as groups in place of ids."""
        taken, returned = ([[group_of[ids] for ids in each] for each in half] for half in (self.taken, self.returned))
        return PassedChannels(taken, returned)


Mode = Mapping[str, PassedChannels]  # the channels passed by each module, by its path


def passed_channels(labelled: LabelledProgram) -> dict[str, PassedChannels]:
    """Return the ids of the channels that each module takes and returns."""

    def ids(values: Iterable[Value]) -> Vectors:
        labels = [labelled.labels.get(value) for value in values]
        return [[axis.ids for axis in label.axes.values()] if label is not None else [] for label in labels]

    return {path: PassedChannels(ids(one.taken), ids(one.returned)) for path, one in labelled.program.passed.items()}


def noted_widths(
    model: nn.Module, slots: Sequence[Slot], modes: Sequence[Mode], attributes: Iterable[Attribute]
) -> tuple[NotedWidth, ...]:
    """Return the noted numbers of `model` that may count channels of groups.

    Args:
        model: the network.
        slots: where channels lie.
        modes: the groups that each module takes and returns, in evaluation, then in training.
        attributes: numbers whose meaning is known, since code reads them.
    """
    bound = {(one.path, f"{one.name}.{one.item}" if one.item >= 0 else one.name) for one in attributes}
    by_size = defaultdict[int, list[Slot]](list)
    for slot in slots:
        by_size[slot.groups.numel()].append(slot)
    found = []
    for number in noted_numbers(model):
        if number.value in by_size and (number.path, number.name) not in bound:
            groups = _distinct(_candidates(number, slots, by_size[number.value], modes))
            if groups:
                is_width = number.meaning is not Meaning.UNKNOWN
                found.append(NotedWidth(number.path, number.name, groups, is_width))
    return (*found, *_tensors(model, slots))


def _tensors(model: nn.Module, slots: Sequence[Slot]) -> Iterator[NotedWidth]:
    """Yield tensors without known channels that are shaped like tensors with some: averages and copies of weights that
    a network keeps as buffers."""
    tensors = named_tensors(model)
    alike = defaultdict[torch.Size, list[Slot]](list)
    for slot in slots:
        alike[tensors[slot.path].shape].append(slot)
    known = {slot.path for slot in slots}
    for path, tensor in tensors.items():
        if path not in known and tensor.dim() and tensor.is_floating_point() and (found := alike.get(tensor.shape)):
            module, _, name = path.rpartition(".")
            yield NotedWidth(module, name, _distinct(slot.groups for slot in found if slot.dim == found[0].dim), False)


def _candidates(
    number: NotedNumber, slots: Sequence[Slot], alike: Sequence[Slot], modes: Sequence[Mode]
) -> list[Tensor]:
    """Return the groups of each dimension that a number may count, by the first convention that finds any.

    `alike` are the members of `slots` whose size equals the number.
    """
    within = [slot for slot in alike if slot.path.startswith(f"{number.path}.".lstrip("."))]
    paths = {path for mode in modes for path in mode if _is_named(path, number)} if number.beside else {number.path}
    passed = [mode[path] for mode in modes for path in paths if path in mode]
    taken = [one.taken for one in passed] if number.meaning is Meaning.TAKEN else []
    returned = [one.returned for one in passed] if number.beside or number.meaning is Meaning.RETURNED else []
    if number.configures and not number.beside:
        return [slot.groups for slot in within]
    fitting = [groups for tensors in (*taken, *returned) for groups in _of_number(tensors, number)]
    if not fitting and returned and not number.beside:
        fitting = _upstream([groups for tensors in returned for each in tensors for groups in each], slots, within)
    return fitting or [slot.groups for slot in within]


def _of_number(tensors: Vectors, number: NotedNumber) -> list[Tensor]:
    """Return the groups among `tensors` that a number fits; a list of numbers may hold one number per tensor."""
    item = number.name.rpartition(".")[2]
    one_each = item.isdigit() and number.items == len(tensors) and not number.beside
    chosen = [tensors[int(item)]] if one_each else tensors
    return [groups for each in chosen for groups in each if _fits(groups, number)]


def _is_named(path: str, number: NotedNumber) -> bool:
    """Return whether `path` is that of the module beside a number; timm sometimes joins its parts with underscores."""
    inside = path.removeprefix(f"{number.path}.") if number.path else path
    return number.beside in (inside, inside.partition(".")[2]) or number.beside.replace(".", "_") == inside


def _upstream(made: list[Tensor], slots: Sequence[Slot], alike: Sequence[Slot]) -> list[Tensor]:
    """Go upstream from the groups `made`, layer by layer; return the first groups of `alike` dimensions read there."""
    passed, wide = set[str](), set(map(id, alike))
    known = (*made, *(slot.groups for slot in slots))
    count = 1 + max((int(groups.max()) for groups in known if groups.numel()), default=0)
    while made:
        wanted = torch.zeros(count + 1, dtype=torch.bool)  # the last entry is that of -1, no group
        wanted[torch.cat(made)] = True
        wanted[-1] = False
        makers = {slot.layer for slot in slots if slot.dim == 0 and bool(wanted[slot.groups].any())}
        makers -= passed
        reads = [slot for slot in slots if slot.dim > 0 and slot.layer in makers]
        if found := [slot.groups for slot in reads if id(slot) in wide]:
            return found
        passed |= makers
        made = [slot.groups for slot in reads]
    return []


def _fits(groups: Tensor, number: NotedNumber) -> bool:
    return groups.dim() == 1 and groups.numel() == number.value and bool((groups >= 0).any())


def _distinct(groups: Iterable[Tensor]) -> tuple[Tensor, ...]:
    found: dict[bytes, Tensor] = {}
    for each in groups:
        found.setdefault(each.numpy().tobytes(), each)
    return tuple(found.values())
