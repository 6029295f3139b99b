"""What walking a graph brings together: channels united, marked, consumed, produced."""

import dataclasses
import enum

from torch import Tensor

from prunus.graph.ids import ChannelIds
from prunus.graph.labels import Axis

Factor = Axis | int  # of a product of sizes: a dimension that may shrink, or a fixed size


class Kind(enum.Enum):
    """What a mark says of channels."""

    REFUSED = "refused"  # they may not go
    APPROXIMATE = "approximate"  # the output changes when they go
    WRITTEN = "written"  # they may go if the code finds out the new size by itself, or reads it from an attribute


@dataclasses.dataclass(frozen=True)
class Mark:
    """Something said of channels, and where.

    Attributes:
        ids: of what it is said; for a written size all that the size counts, `NONE` included.
        number: the node's number in the walk.
        module: dotted path of the module whose code it is.
        line: "file:line" of the code.
        unlike: a written size that is one part of several unlike ones.
        nth: which of how many equal sizes a written one is, in the order of the code: two attributes may be alike.
    """

    ids: Tensor
    reason: str
    kind: Kind
    number: int = 0
    module: str = ""
    line: str = ""
    nth: tuple[int, int] = (0, 1)
    unlike: bool = False


@dataclasses.dataclass
class Findings:
    """What walking the graph brings together."""

    ids: ChannelIds = dataclasses.field(default_factory=ChannelIds)
    marks: list[Mark] = dataclasses.field(default_factory=list)
    consumed: list[Tensor] = dataclasses.field(default_factory=list)  # ids of weights' contracted dimensions
    produced: list[Tensor] = dataclasses.field(default_factory=list)  # ids of weights' output dimensions
    contracted: list[Tensor] = dataclasses.field(default_factory=list)  # ids that are summed over somewhere
    statistics: list[Tensor] = dataclasses.field(default_factory=list)  # ids of running statistics
    macs: list[tuple[str, tuple[Factor, ...]]] = dataclasses.field(default_factory=list)
    positions: list[Tensor] = dataclasses.field(default_factory=list)  # ids of kernels' positions: never channels
    needed: list[Tensor] = dataclasses.field(default_factory=list)  # ids of buffers that must be zero too
    reasons: dict[int, str] = dataclasses.field(default_factory=dict)  # node number -> "op at place"
    attended: list[Tensor] = dataclasses.field(default_factory=list)  # ids along which attention takes its products
    places: dict[tuple[int, int], dict[tuple[int, ...], int]] = dataclasses.field(
        default_factory=dict
    )  # see `Call.place`
    finer: dict[tuple[int, int], bool] = dataclasses.field(default_factory=dict)  # see `Call.is_finer`
    whole: Tensor | None = None  # bool [num_ids]: sizes of heads that stay, since heads go as a whole

    def afresh(self, whole: Tensor | None = None) -> "Findings":
        """Return empty findings over the same ids: for the same network at another width, or to part heads anew."""
        result = (
            Findings(whole=self.whole, places=self.places, finer=self.finer) if whole is None else Findings(whole=whole)
        )
        result.ids.new(self.ids.count - 1)
        return result

    def number_of(self, reason: str) -> int:
        """Return a number that stands for `reason`, from 1."""
        number = len(self.reasons) + 1
        self.reasons[number] = reason
        return number
