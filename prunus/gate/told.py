"""The result of a comparison as a sentence and as a table for the terminal."""

import rich.table
import rich.text

from prunus.gate.comparison import Compared
from prunus.gate.settings import Gate
from prunus.gate.slices import SMALL, Judged
from prunus.terminal import visible


def told(found: Compared, settings: Gate) -> str:
    """Return a sentence on whether the gate was passed, which names the worst slices."""
    judged = [each for each in found.slices if each.verdict != SMALL]
    small = len(found.slices) - len(judged)
    rest = f" {small} slices have fewer than {settings.min_samples} samples and are not judged." if small else ""
    if found.passed:
        return f"None of {len(judged)} slices dropped by more than {settings.max_drop:g} points beyond doubt.{rest}"
    worst = ", ".join(f"{each.name} ({_points(each.drop)} points)" for each in found.fallen[:5])
    more = f" and {len(found.fallen) - 5} more" if len(found.fallen) > 5 else ""
    text = f"{len(found.fallen)} of {len(judged)} slices dropped by more than {settings.max_drop:g} points beyond doubt"
    return f"{text}: {worst}{more}.{rest}"


def table(found: Compared, settings: Gate) -> rich.table.Table:
    """Return a table of the slices, the worst first, with drops and their intervals in percentage points."""
    grid = rich.table.Table(title=f"{found.metric}, {len(found.disagreement)} images")
    for heading in ("slice", "samples", "wide", "narrow", "drop", f"{100 * settings.confidence:g} %", "verdict"):
        left = heading in ("slice", "verdict")
        grid.add_column(heading, justify="left" if left else "right", no_wrap=heading == "slice")
    for each in found.slices:
        grid.add_row(*(rich.text.Text(visible(cell)) for cell in _cells(each)))
    return grid


def _cells(each: Judged) -> tuple[str, ...]:
    interval = "" if each.low is None or each.high is None else f"{_points(each.low)} to {_points(each.high)}"
    values = [_points(value) for value in (each.wide, each.narrow, each.drop)]
    return (each.name, str(each.samples), *values, interval, each.verdict)


def _points(value: float | None) -> str:
    return "n/a" if value is None else f"{100 * value:.1f}"
