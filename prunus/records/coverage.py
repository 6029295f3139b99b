"""The removable part of a network, as a table for a reader."""

import dataclasses
import io
import re

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerCoverage:
    """The channels that one layer produces."""

    layer: str
    channels: int
    exact: int
    approximate: int
    refused: int
    reason: str  # of most channels that are not exact; "" where all are


@dataclasses.dataclass(frozen=True, kw_only=True)
class Coverage:
    """The removable part of a network; prints as a table.

    Attributes:
        rows: the layers that produce channels, in the order of the model.
        exact_params: share of the parameters that belong to a channel of an exactly removable group, in [0, 1].
        exact_macs: likewise of the multiply-adds.
        removable_params: share that belongs to an exactly or approximately removable group.
        removable_macs: likewise of the multiply-adds.
        notes: on the trace, for the reader.
    """

    rows: tuple[LayerCoverage, ...]
    exact_params: float
    exact_macs: float
    removable_params: float
    removable_macs: float
    notes: tuple[str, ...]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        alike: dict[str, dict[str, None]] = {}  # reasons that differ only in module and sizes, once each
        for row in self.rows:
            if row.reason:
                alike.setdefault(_regardless(row.reason), {})[row.reason] = None
        numbers = {kind: str(number) for number, kind in enumerate(alike, 1)}
        table = Table("layer", *_NUMBERS, "why", box=None, pad_edge=False)
        for column in table.columns[1:]:
            column.justify = "right"
        for row in self.rows:
            counts = (row.channels, row.exact, row.approximate, row.refused)
            why = numbers[_regardless(row.reason)] if row.reason else ""
            table.add_row(row.layer, *(str(count) if count else "-" for count in counts), why)
        yield table
        yield Text()
        for kind, reasons in alike.items():
            others = f" - likewise in {len(reasons) - 1} other places" if len(reasons) > 1 else ""
            yield Text(f"{numbers[kind]}  {next(iter(reasons))}{others}")
        yield Text(f"\n{self.summary()}" if alike else self.summary())
        yield from (Text(note) for note in self.notes)

    def summary(self) -> str:
        """Return the totals in one sentence."""
        return (
            f"{self.exact_params:.0%} of the parameters and {self.exact_macs:.0%} of the MACs lie in channels that can "
            f"be removed exactly, {self.removable_params:.0%} and {self.removable_macs:.0%} in channels that can be "
            "removed at all"
        )

    def __str__(self) -> str:
        text = io.StringIO()
        Console(file=text, width=160).print(self)
        return text.getvalue()


def _regardless(reason: str) -> str:
    """Return a reason without its module and its sizes; lines of code are kept."""
    return re.sub(r"(?<![\w:.])\d+", "#", re.sub(r" in [\w.]+, ", " in #, ", reason))


_NUMBERS = ("channels", "exact", "approx.", "refused")
