"""The report of a run, from its records: the page `report.html` and a short table for the terminal."""

from prunus.report.html import write
from prunus.report.summary import table

__all__ = ["table", "write"]
