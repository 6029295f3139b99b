"""Findings of a walk: united channels, and marks on channels (refused, approximate, produced, consumed, ...)."""

import dataclasses
import enum

import torch
from torch import Tensor

from prunus.graph.cost import Term
from prunus.graph.ids import NONE, ChannelIds
from prunus.graph.labels import Axis


class Kind(enum.Enum):
    """What a mark states about channels."""

    REFUSED = "they may not be removed"
    APPROXIMATE = "the output changes when they are removed"
    HARD_CODED = "they may be removed if the code computes the new size itself, or reads it from an attribute"
    CONTRACTED = "they are summed over somewhere"
    PRODUCED = "a weight's dimension makes them"
    CONSUMED = "a weight's dimension reads them"
    STATISTIC = "a running statistic or a buffer goes along with them"
    ZEROED = "a buffer must be zero with them"
    POSITION = "they are positions of a kernel, never channels"
    HEAD_SIZE = "attention takes its products along them"


REASONED = (Kind.REFUSED, Kind.APPROXIMATE, Kind.HARD_CODED)  # the kinds that come with a reason for the user


@dataclasses.dataclass(frozen=True, eq=False)
class Mark:
    """A statement about channels, and the place in the code that it comes from.

    Attributes:
        ids: the channels; for a hard-coded size all ids that it counts, `NONE` included.
        kind: the statement.
        reason: the reason shown to the user.
        number: the operation's number in the walk.
        module: dotted path of the module whose code it is.
        line: "file:line" of the code.
        nth: (index, count) of a hard-coded size among equal ones in the order of the code: two attributes may be equal.
        unequal: whether a hard-coded size is one of several unequal parts.
    """

    ids: Tensor
    kind: Kind
    reason: str = ""
    number: int = 0
    module: str = ""
    line: str = ""
    nth: tuple[int, int] = (0, 1)
    unequal: bool = False


@dataclasses.dataclass
class Findings:
    """The findings of one or several walks over the same ids.

    Attributes:
        ids: the channels.
        marks: the marks on them.
        macs: the multiply-adds of each operation, with ids as factors in place of groups.
        reasons: "operator in module, file:line" by the operation's number.
        places: the dimensions along which `rules/placement.py` puts channels, decided once for all widths.
        finer: which of two dimensions has more channels, decided there too.
        whole: bool [num_ids], channels inside heads that stay since heads are removed whole; None where heads shrink.
        made: ids of the zeros that an operator puts beside channels (`Call.zeros`), the same for all widths.
        alive: bool [num_ids], the ids left at the width that is walked; None where all are.
    """

    ids: ChannelIds = dataclasses.field(default_factory=ChannelIds)
    marks: list[Mark] = dataclasses.field(default_factory=list)
    macs: list[Term] = dataclasses.field(default_factory=list)
    reasons: dict[int, str] = dataclasses.field(default_factory=dict)
    places: dict[tuple[int, int], dict[tuple[int, ...], int]] = dataclasses.field(default_factory=dict)
    finer: dict[tuple[int, int], bool] = dataclasses.field(default_factory=dict)
    whole: Tensor | None = None
    made: dict[tuple[int, int], Tensor] = dataclasses.field(default_factory=dict)
    alive: Tensor | None = None

    def mark(self, kind: Kind, axis: Axis | Tensor | None) -> None:
        """Mark the channels of an axis as `kind`, without a reason."""
        if axis is not None:
            self.marks.append(Mark(axis.ids if isinstance(axis, Axis) else axis, kind))

    def ids_of(self, *kinds: Kind) -> Tensor:
        """Return the ids that carry any of these marks, int [n]; an id may occur more than once."""
        found = [mark.ids.reshape(-1) for mark in self.marks if mark.kind in kinds]
        return torch.cat(found) if found else torch.tensor([NONE])

    def afresh(self, whole: Tensor | None = None, alive: Tensor | None = None) -> "Findings":
        """Return empty findings over the same ids: at another width, or, given `whole`, with heads placed anew."""
        kept = {"places": self.places, "finer": self.finer, "whole": self.whole, "made": self.made, "alive": alive}
        result = Findings(**kept) if whole is None else Findings(whole=whole)  # type: ignore[arg-type]
        result.ids.new(self.ids.count - 1)
        return result

    def number_of(self, reason: str) -> int:
        """Return a number that stands for `reason`, from 1."""
        number = len(self.reasons) + 1
        self.reasons[number] = reason
        return number
