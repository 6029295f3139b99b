"""Channels that are off: zero wherever they are read, although some of the weights that make them are not."""

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from prunus.graph.findings import Findings, Kind
from prunus.graph.walk import Slots, walk
from prunus.modules.tensors import named_tensors
from prunus.program import Program

SHIFTS = {"bias", "running_mean"}  # tensors that torch's layers add


@dataclasses.dataclass(frozen=True, eq=False)
class Off:
    """Finds the groups whose removal is exact with a network's current values.

    The network's operations are walked again. A channel of a parameter or buffer now counts as zero where its own
    values are zero, not only where all its producers are: a kernel before a batch norm whose scale and shift are zero,
    or behind a mask, may have any value, unless its output is read elsewhere too.

    Attributes:
        programs: the network's operations, in evaluation and, where it differs, in training.
        findings: the findings of the first walk.
        slots: the ids of the network's tensors.
        group_of: the group of each id, -1 where it is in none: int [num_ids].
        excluded: groups that are refused, or approximate at any values: bool [num_groups].
    """

    programs: tuple[Program, ...]
    findings: Findings
    slots: Slots
    group_of: Tensor
    excluded: Tensor

    def __call__(self, model: nn.Module, zero_groups: Tensor | None = None) -> Tensor:
        """Return the groups that are off in `model`: bool [num_groups].

        Args:
            model: the network that was traced.
            zero_groups: groups already known to be zero, which alone do not start a search: bool [num_groups].
        """
        tensors = named_tensors(model)
        known = torch.zeros_like(self.excluded) if zero_groups is None else zero_groups
        if not self._may_be_off(tensors, known):
            return torch.zeros_like(self.excluded)
        again = self.findings.afresh(alive=torch.ones(self.findings.ids.count, dtype=torch.bool))
        zero, on = dict[tuple[str, int], Tensor](), torch.zeros(self.findings.ids.count, dtype=torch.bool)
        for (path, dim), ids in self.slots.items():
            zero[path, dim] = _zero_rows(tensors[path].detach().movedim(dim, 0)).cpu()
            on[ids[~zero[path, dim]]] = True
        for program in self.programs:
            walk(program, model, again, self.slots, zero)
        zeroed = again.ids_of(Kind.ZEROED)  # counted as zero by the rules
        seen = self.group_of[torch.cat([again.ids_of(Kind.APPROXIMATE), zeroed[on[zeroed]]])]
        result = ~self.excluded
        result[seen[seen >= 0]] = False
        return result

    def _may_be_off(self, tensors: Mapping[str, Tensor], known: Tensor) -> bool:
        """Return whether a tensor is zero in a group neither excluded nor known; a zero shift turns nothing off."""
        with_values = torch.cat([~(self.excluded | known), torch.tensor([False])])  # -1, in no group, is the last
        for (path, dim), ids in self.slots.items():
            values = tensors[path].detach().movedim(dim, 0)
            first = values  # for most channels, one value is enough to see that they are not zero
            while first.dim() > 1:
                first = first.select(1, 0)
            rows = (first == 0).cpu() & with_values[self.group_of[ids]]
            shift = path.rpartition(".")[2] in SHIFTS
            if not shift and bool(rows.any()) and bool(_zero_rows(values[rows.to(values.device)]).any()):
                return True
        return False


def _zero_rows(values: Tensor) -> Tensor:
    """Return whether each entry of the first dimension is zero throughout, bool [size]."""
    return (values == 0).reshape(values.shape[0], -1).all(1)
