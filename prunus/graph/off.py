"""Channels that are off: zero wherever they are read, though not all that makes them is zero."""

import dataclasses

import torch
from torch import Tensor, nn

from prunus.graph.findings import Findings, Kind
from prunus.graph.program import Program
from prunus.graph.walk import Slots, walk
from prunus.modules.tensors import named_tensors


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
        for (path, dim), ids in self.slots.items():
            values = tensors[path].detach().movedim(dim, 0).reshape(ids.numel(), -1)
            zero[path, dim] = (values == 0).all(1).cpu()
            on[ids[~zero[path, dim]]] = True
        for program in self.programs:
            walk(program, model, again, self.slots, zero)
        zeroed = again.ids_of(Kind.ZEROED)  # counted as zero by the rules
        seen = self.group_of[torch.cat([again.ids_of(Kind.APPROXIMATE), zeroed[on[zeroed]]])]
        result = ~self.excluded
        result[seen[seen >= 0]] = False
        return result
