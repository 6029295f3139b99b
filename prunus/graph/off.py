"""Channels that are off: zero wherever they are read, though not all that makes them is zero."""

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from prunus.graph.findings import Findings, Kind
from prunus.graph.program import Program
from prunus.graph.walk import Slots, walk
from prunus.modules.tensors import named_tensors

SHIFTS = {"bias", "running_mean"}  # what is added, by the names of torch's layers


@dataclasses.dataclass(frozen=True, eq=False)
class Off:
    """Finds the groups whose removal is exact with the values that a network has now.

    The network's operations are walked again. A channel of a parameter or buffer now counts as zero where it is zero,
    rather than where all that makes the channel is: a kernel before a batch norm whose scale and shift are zero, or
    behind a mask, may have any value, unless something else reads its output.

    Attributes:
        programs: the network's operations, in evaluation and, where it differs, in training.
        findings: what the first walk found.
        slots: the ids of the network's tensors.
        group_of: the group of each id, -1 where it is in none: int [num_ids].
        excluded: groups that are refused, or approximate at whatever values: bool [num_groups].
    """

    programs: tuple[Program, ...]
    findings: Findings
    slots: Slots
    group_of: Tensor
    excluded: Tensor

    def __call__(self, model: nn.Module) -> Tensor:
        """Return the groups that are off in `model`: bool [num_groups]."""
        again = self.findings.afresh(alive=torch.ones(self.findings.ids.count, dtype=torch.bool))
        tensors, zero = named_tensors(model), dict[tuple[str, int], Tensor]()
        on = torch.zeros(self.findings.ids.count, dtype=torch.bool)
        zeros = {path: tensors[path].detach() == 0 for path in {path for path, _ in self.slots}}
        for (path, dim), ids in self.slots.items():
            others = [each for each in range(zeros[path].dim()) if each != dim]
            zero[path, dim] = (zeros[path].all(others) if others else zeros[path]).cpu()
            on[ids[~zero[path, dim]]] = True
        if not self._may_be_off(zero, on):
            return torch.zeros_like(self.excluded)
        for program in self.programs:
            walk(program, model, again, self.slots, zero)
        zeroed = again.ids_of(Kind.ZEROED)  # counted as zero by the rules
        seen = self.group_of[torch.cat([again.ids_of(Kind.APPROXIMATE), zeroed[on[zeroed]]])]
        result = ~self.excluded
        result[seen[seen >= 0]] = False
        return result

    def _may_be_off(self, zero: Mapping[tuple[str, int], Tensor], on: Tensor) -> bool:
        """Whether anything is zero that belongs to a group with values; a shift alone turns nothing off."""
        groups_on = torch.zeros(self.excluded.numel() + 1, dtype=torch.bool)
        groups_on[self.group_of[on]] = True
        groups_on[:-1] &= ~self.excluded
        groups_on[-1] = False  # of what is in no group
        return any(
            bool((zero[path, dim] & groups_on[self.group_of[ids]]).any())
            for (path, dim), ids in self.slots.items()
            if path.rpartition(".")[2] not in SHIFTS
        )
