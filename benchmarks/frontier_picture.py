"""The picture of `frontier.py` as an SVG file: a panel for each task, a line for each arm, error bars."""

import html
import math
from collections.abc import Sequence

from frontier_arms import OURS, WIDE, WIDE_LONG
from frontier_rows import Row, mean_and_error
from frontier_tasks import TASKS

PANEL, HEIGHT, MARGIN, LEGEND = 300, 300, 46, 150  # pixels
COLOURS = {
    "uniform": "#7f7f7f",
    "tp-l2": "#9ecae1",
    "tp-l2-steps": "#6baed6",
    "tp-taylor": "#fd8d3c",
    "tp-taylor-steps": "#e6550d",
    "tp-taylor-global": "#a63603",
    "select": "#31a354",
    "joint": "#d62728",
    "scratch": "#756bb1",
    "uniform-long": "#bdbdbd",
    "uniform-taught": "#525252",
    "tp-taylor-after": "#e6b800",
    "tp-taylor-taught": "#8c2d04",
    "started": "#99000d",
    "taught": "#e377c2",
    "fresh-taught": "#17becf",
}
DASHES = {WIDE: "4 3", WIDE_LONG: "1 3"}
LOWEST = 0.07  # share of the multiply-adds at the left edge

Point = tuple[float, float, float]  # share of the multiply-adds, mean, standard error


def picture(rows: Sequence[Row]) -> str:
    """Return a plot of the test metric over the remaining multiply-adds, both in %, on a logarithmic x axis."""
    tasks = [task for task in TASKS if any(row["task"] == task and row["split"] == "test" for row in rows)]
    width = PANEL * len(tasks) + LEGEND
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{HEIGHT}" font-family="sans-serif" '
        'font-size="11">',
        f'<rect width="{width}" height="{HEIGHT}" fill="white"/>',
    ]
    lines = {task: points(rows, task) for task in tasks}
    for number, task in enumerate(tasks):
        parts += panel(task, lines[task], PANEL * number)
    drawn = [arm for arm in (*COLOURS, *DASHES) if any(arm in line for line in lines.values())]
    for number, arm in enumerate(drawn):
        y, left = 24 + 18 * number, PANEL * len(tasks) + 8
        parts.append(f'<path d="M{left} {y}h20" {stroke(arm)}/>')
        parts.append(f'<text x="{left + 26}" y="{y + 4}">{html.escape(arm)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def points(rows: Sequence[Row], task: str) -> dict[str, list[Point]]:
    """Return the points of each arm with a budget in multiply-adds, in ascending order of network size."""
    own = [row for row in rows if row["task"] == task and row["split"] == "test"]
    wide = [row["macs"] for row in own if row["arm"] == WIDE]
    found: dict[str, list[Point]] = {}
    for arm in (*COLOURS, *DASHES):
        for budget in dict.fromkeys(row["budget"] for row in own if row["arm"] == arm):
            cell = [row for row in own if row["arm"] == arm and row["budget"] == budget]
            if wide and not str(budget).startswith("latency"):
                mean, error = mean_and_error([row["test"] for row in cell])
                share = sum(row["macs"] for row in cell) / len(cell) / wide[0]
                found.setdefault(arm, []).append((share, mean, error or 0.0))
        found.get(arm, []).sort()
    return found


def panel(task: str, lines: dict[str, list[Point]], left: int) -> list[str]:
    """Return a task's axes and lines."""
    values = [mean + sign * error for line in lines.values() for _, mean, error in line for sign in (-1, 1)]
    low, high = math.floor(20 * min(values, default=0.0)) / 20, math.ceil(20 * max(values, default=1.0)) / 20
    bottom, inside = HEIGHT - MARGIN, PANEL - MARGIN - 10

    def x(share: float) -> float:
        return left + MARGIN + inside * (1 - math.log(share) / math.log(LOWEST))

    def y(value: float) -> float:
        return bottom - (value - low) / (high - low) * (bottom - MARGIN / 2)

    parts = [f'<text x="{left + MARGIN}" y="14" font-weight="bold">{task}, test {TASKS[task].metric} in %</text>']
    for value in (low, (low + high) / 2, high):
        parts.append(f'<path d="M{x(LOWEST):.1f} {y(value):.1f}H{x(1):.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{left + 12}" y="{y(value) + 4:.1f}">{100 * value:.1f}</text>')
    for share in (0.1, 0.3, 1.0):
        parts.append(f'<text x="{x(share) - 8:.1f}" y="{bottom + 16}">{100 * share:.0f}</text>')
    parts.append(f'<text x="{left + MARGIN}" y="{bottom + 32}">multiply-adds, % of the wide network</text>')
    for arm in DASHES:
        for _, mean, _ in lines.get(arm, []):
            parts.append(f'<path d="M{x(LOWEST):.1f} {y(mean):.1f}H{x(1):.1f}" {stroke(arm)}/>')
    for arm, colour in COLOURS.items():
        places = [(x(share), y(mean), y(mean - error) - y(mean)) for share, mean, error in lines.get(arm, [])]
        path = "L".join(f"{a:.1f} {b:.1f}" for a, b, _ in places)
        bars = "".join(f"M{a:.1f} {b - c:.1f}v{2 * c:.1f}" for a, b, c in places)
        if places:
            parts.append(f'<path d="M{path}{bars}" fill="none" {stroke(arm)}/>')
        parts += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="2.5" fill="{colour}"/>' for a, b, _ in places]
    return parts


def stroke(arm: str) -> str:
    """Return the look of an arm's line; Prunus' arms stand out."""
    if arm in DASHES:
        return f'stroke="black" stroke-dasharray="{DASHES[arm]}"'
    return f'stroke="{COLOURS[arm]}" stroke-width="{2.5 if arm in OURS else 1.2}"'
