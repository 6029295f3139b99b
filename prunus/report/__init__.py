"""Tell a run: the page `report.html` and the short table for the terminal, both from its records."""

from prunus.report.html import write
from prunus.report.summary import table

__all__ = ["table", "write"]
