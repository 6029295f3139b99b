"""Rows of figures, appended to a file as JSON lines; no row is made twice."""

import datetime
import json
import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from prunus.pipeline.environment import hardware

Row = dict[str, Any]


class Rows:
    """The rows of a file; the fields `key` identify a row."""

    def __init__(self, path: Path, key: Sequence[str]) -> None:
        self.path, self.key = path, tuple(key)

    def read(self) -> list[Row]:
        """Return all rows in the order of the file."""
        if not self.path.exists():
            return []
        return [json.loads(line) for line in self.path.read_text(encoding="utf-8").splitlines()]

    def find(self, which: Row) -> Row | None:
        """Return the row with the key `which`; None if there is none yet."""
        assert tuple(which) == self.key
        return next((row for row in self.read() if all(row[name] == which[name] for name in self.key)), None)

    def once(self, which: Row, make: Callable[[], Row]) -> Row:
        """Return the row with the key `which`; make and append it if there is none yet."""
        if found := self.find(which):
            return found
        figures = make()
        row = {
            **which,
            **figures,
            "date": datetime.date.today().isoformat(),
            "processor": hardware()["processor"],
        }
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)
        return row


def mean_and_error(values: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean and its standard error over seeds; None for a single seed."""
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
    return statistics.mean(values), error


def told(values: Sequence[float]) -> str:
    """Return "mean ± standard error" in points."""
    if not values:
        return ""
    mean, error = mean_and_error(values)
    return f"{100 * mean:.1f}" + ("" if error is None else f" ± {100 * error:.1f}")
