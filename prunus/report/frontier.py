"""The report of a sweep: accuracy against milliseconds, one point per budget."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from prunus.report import plots, words
from prunus.report.html import FILE_NAME, HERE, own_file, plotly_js
from prunus.writing import write_whole

DATA_NAME = "frontier.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
    """One network of a sweep.

    Attributes:
        name: the budget, or "wide".
        metric: name of the task's main metric.
        value: the metric on the test split, in [0, 1].
        median_ms: median latency, timed in turn with all others.
        p95_ms: 95th percentile of it.
        macs: its multiply-adds.
        params: its parameters.
        where: the target.
        folder: folder of its run, beside the report.
    """

    name: str
    metric: str
    value: float
    median_ms: float
    p95_ms: float
    macs: int
    params: int
    where: str
    folder: str


def on_frontier(points: Sequence[Point]) -> list[Point]:
    """Return the points that no other point beats in both quantities, the fastest first."""
    found: list[Point] = []
    for point in sorted(points, key=lambda each: (each.median_ms, -each.value)):
        if not found or point.value > found[-1].value:
            found.append(point)
    return found


def figure(points: Sequence[Point]) -> plots.Figure:
    """Return the figure: accuracy against milliseconds, with the frontier as a line."""
    return plots.frontier(
        [(p.name, p.median_ms, p.value) for p in points],
        [(p.median_ms, p.value) for p in on_frontier(points)],
        words.metric_name(points[0].metric),
    )


def write(folder: Path, name: str, points: Sequence[Point], failed: Mapping[float, str], bound: str) -> Path:
    """Write `folder/report.html` and the points as JSON; return the report's path.

    Args:
        folder: folder of the sweep.
        name: name of the recipe.
        points: all networks, timed in turn.
        failed: budgets that cannot be met, with the reasons.
        bound: the bounded quantity.
    """
    rows = sorted(points, key=lambda point: -point.median_ms)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shown: dict[str, Any] = {
        "name": name,
        "bound": bound,
        "rows": rows,
        "frontier": {point.name for point in on_frontier(points)},
        "failed": failed,
        "words": words,
        "figures": {"frontier": figure(rows)},
        "style": own_file("style.css"),
        "script": own_file("report.js"),
        "plotly": plotly_js(),
    }
    data = [dataclasses.asdict(point) for point in rows]
    write_whole(folder / DATA_NAME, (json.dumps(data, indent=1) + "\n").encode())
    path = folder / FILE_NAME
    write_whole(path, environment.get_template("frontier.html").render(shown).encode("utf-8", "backslashreplace"))
    return path
