"""Channel groups: channels that can only be removed together, where they lie, and whether removal is exact."""

import dataclasses
import functools
from collections.abc import Callable

import torch
from torch import Tensor

from prunus.graph.cost import CostModel
from prunus.graph.coverage import coverage
from prunus.graph.slots import Attribute, Member, NotedWidth, Reason, Role, Slot, Status, whole
from prunus.modules.defaults import whatever_device
from prunus.records.coverage import Coverage


@dataclasses.dataclass(frozen=True, eq=False)
class ChannelGroups:
    """All channel groups of a network, as found by `prunus.trace`. After an edit, trace again.

    Attributes:
        slots: every dimension of every parameter and buffer that holds channels.
        exact: bool [num_groups]; once its producers are zero, removing the group does not change the output.
        refused: bool [num_groups]; the group may not be removed.
        layers: int [num_groups]; index into `layer_names` of the first layer that makes the group's channels.
        layer_names: the layers' names as shown to the user, each unique.
        told: why groups are refused or approximate.
        cost: MACs and parameters as functions of the groups alive.
        attributes: numbers kept by modules that count channels.
        noted: numbers that may count channels, but that no code reads while the network runs.
        notes: remarks on the trace itself, for the report.
        off: finds the groups that are zero wherever they are read (`graph.off`); None where `without` made the groups.
    """

    slots: tuple[Slot, ...]
    exact: Tensor
    refused: Tensor
    layers: Tensor
    layer_names: tuple[str, ...]
    told: tuple[Reason, ...]
    cost: CostModel
    attributes: tuple[Attribute, ...] = ()
    noted: tuple[NotedWidth, ...] = ()
    notes: tuple[str, ...] = ()
    off: Callable[..., Tensor] | None = None

    def __len__(self) -> int:
        """Count the groups."""
        return self.exact.numel()

    def __repr__(self) -> str:
        num_exact, num_refused = int(self.exact.sum()), int(self.refused.sum())
        num_approximate = len(self) - num_exact - num_refused
        return f"ChannelGroups({num_exact} exact, {num_approximate} approximate, {num_refused} refused)"

    @property
    def removable(self) -> Tensor:
        """Whether each group may be removed, exactly or approximately: bool [num_groups]."""
        return ~self.refused

    @functools.cached_property
    def reasons(self) -> dict[int, tuple[str, ...]]:
        """The reasons why each group is refused or approximate, by group number: refusals first."""
        found: dict[int, dict[str, None]] = {}
        for reason in sorted(self.told, key=lambda reason: not reason.refused):
            for group in reason.groups.tolist():
                found.setdefault(group, {})[reason.text] = None
        return {group: tuple(texts) for group, texts in found.items()}

    @whatever_device
    def coverage(self) -> Coverage:
        """Return which channels can be removed exactly, approximately and not at all, layer by layer, and why."""
        return coverage(self.unit_slots(), self.exact, self.removable, self.told, self.cost, self.notes)

    def status(self, group: int) -> Status:
        """Return whether `group` may be removed, and how."""
        if self.refused[group]:
            return Status.REFUSED
        return Status.EXACT if self.exact[group] else Status.APPROXIMATE

    def members(self, group: int) -> tuple[Member, ...]:
        """Return where the channels of `group` lie."""
        return tuple(
            Member(slot.path, slot.dim, index, slot.role)
            for slot in self.slots
            for index in (slot.groups == group).nonzero().flatten().tolist()
        )

    @whatever_device
    def all_alive(self) -> Tensor:
        """Return the mask of all groups, bool [num_groups]."""
        return torch.ones(len(self), dtype=torch.bool)

    @whatever_device
    def macs(self, alive: Tensor | None = None) -> int:
        """Return the multiply-adds for the traced inputs with the groups `alive` (default: all)."""
        return self.cost.total("macs", self.all_alive() if alive is None else alive)

    @whatever_device
    def params(self, alive: Tensor | None = None) -> int:
        """Return the number of parameters with the groups `alive` (default: all)."""
        return self.cost.total("params", self.all_alive() if alive is None else alive)

    @whatever_device
    def widths(self, alive: Tensor | None = None) -> dict[str, int]:
        """Return the units of each layer: the output channels of each matrix or kernel."""
        mask = torch.cat([self.all_alive() if alive is None else alive, torch.ones(1, dtype=torch.bool)])
        return {slot.layer: int(mask[slot.groups].sum()) for slot in self.unit_slots()}

    @whatever_device
    def without(self, removed: Tensor) -> "ChannelGroups":
        """Return the groups left once `removed`, bool [num_groups], are cut, renumbered in the same order.

        The result equals a fresh trace of the narrower network, except that a group that is now the whole width of a
        layer is refused here and is not a group there.
        """
        alive = ~removed
        numbers = torch.cat([torch.where(alive, alive.cumsum(0) - 1, -2), torch.tensor([-1])])

        def left(groups: Tensor) -> Tensor:
            new = numbers[groups]
            return new[new != -2]

        slots = tuple(dataclasses.replace(slot, groups=left(slot.groups)) for slot in self.slots)
        refused = self.refused[alive].clone()
        told = [dataclasses.replace(reason, groups=left(reason.groups)) for reason in self.told]
        for text, group in whole(slots):
            refused[group] = True
            told.append(Reason(text, group, True))
        return dataclasses.replace(
            self,
            off=None,
            slots=slots,
            exact=self.exact[alive] & ~refused,
            refused=refused,
            layers=self.layers[alive],
            told=tuple(told),
            cost=self.cost.mapped(left),
            attributes=tuple(dataclasses.replace(one, groups=left(one.groups)) for one in self.attributes),
            noted=tuple(dataclasses.replace(one, groups=tuple(map(left, one.groups))) for one in self.noted),
        )

    def unit_slots(self) -> list[Slot]:
        """Return one slot per layer, whose indices are the layer's units: the first dimension of a matrix or kernel
        that makes channels. Its other dimension reads channels, or is the size of a weight's input."""
        reads = {slot.layer for slot in self.slots if slot.role is Role.CONSUMER}
        reads |= {slot.layer for slot in self.slots if slot.dim > 0 and slot.layer != slot.path}
        found: dict[str, Slot] = {}
        for slot in self.slots:
            if slot.role is Role.PRODUCER and slot.layer in reads:
                found.setdefault(slot.layer, slot)
        return list(found.values())
