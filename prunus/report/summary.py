"""The short table that a terminal shows at the end of a run."""

from collections.abc import Sequence

import rich.table
import rich.text

from prunus.records import Record
from prunus.report.comparison import compare
from prunus.report.facts import gather
from prunus.terminal import visible


def table(records: Sequence[Record]) -> rich.table.Table:
    """Return the run's headline as a table: wide, narrow, and narrow relative to wide.

    Rows: the task's main metric, MACs, parameters, training seconds, median latency of each backend.
    Missing values are shown as "n/a".
    """
    facts = gather(records)
    grid = rich.table.Table(title=rich.text.Text(visible(facts.run.name)) if facts.run else None)
    grid.add_column("")
    for heading in ("wide", "narrow", "narrow vs wide"):
        grid.add_column(heading, justify="right")
    for row in compare(facts):
        name = f"Latency, {row.label}" if row.quantity == "latency" else row.label
        # Text, not str: rich reads square brackets in a str as its own markup.
        cells = (name, row.show(row.wide), row.show(row.narrow), row.against)
        grid.add_row(*(rich.text.Text(visible(cell)) for cell in cells))
    return grid
