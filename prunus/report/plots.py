"""Figures from records, as plain data for plotly.js: `{"data": [traces], "layout": {...}}`.

A figure contains no colours: the page's script chooses them by the role of each trace (`meta.role`: wide, narrow,
budget) for the colour scheme of screen or print.
"""

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

from prunus.records import CurveRecord, EpochRecord, EvaluationRecord, LatencyRecord, WidthsRecord
from prunus.report.comparison import Goal
from prunus.report.facts import BRANCH
from prunus.report.words import NETWORKS

Figure = dict[str, Any]

LABEL_LENGTH = 24
MARKERS_UP_TO = 40  # epochs; with more, markers touch each other


def widths(record: WidthsRecord) -> Figure:
    """Return the units per layer, the learned number inside the initial one (the talk's slides 71 and 72)."""
    places = list(range(len(record.layers)))
    names = [label(name) for name in record.layers]
    pairs = list(zip(record.learned, record.initial, strict=True))
    hover = [[name, f"{kept} of {built} units"] for name, (kept, built) in zip(names, pairs, strict=True)]
    traces = [
        _trace("bar", role, places, values, name)
        | {"customdata": hover, "hovertemplate": "%{customdata[0]}<br>%{customdata[1]}<extra></extra>"}
        for role, values, name in (
            ("wide", record.initial, "as built"),
            ("narrow", record.learned, "learned"),
        )
    ]
    xaxis = {"tickvals": places, "ticktext": [shortened(name) for name in record.layers], "automargin": True}
    xaxis |= {"range": [-0.6, len(places) - 0.4], "showgrid": False, "tickfont": {"size": 11}}
    xaxis |= {"tickangle": -60 if len(places) > 6 else 0}
    layout = _layout(430, xaxis=xaxis, yaxis={**_axis("units"), "rangemode": "tozero"})
    return {"data": traces, "layout": layout | {"barmode": "overlay", "bargap": 0.18}}


def by_epoch(epochs: Mapping[str, Sequence[EpochRecord]], field: str, goal: Goal | None = None) -> Figure:
    """Return one quantity by epoch: a field of the records, or "metric" for the main metric.

    The narrow network's line joins the trainings of all its stages, one after the other.
    """
    is_metric = field == "metric"
    form = {"metric": ".1%", "loss": ".3~g", "seconds": ".3~g"}.get(field, ".3~s")
    traces = []
    last = 1
    others = ("wide", "encoder", *NETWORKS)
    way = [model for model in epochs if model not in others and not model.startswith(BRANCH)]
    ways = {"wide": ["wide"], "narrow": way}
    for role, way in ways.items():
        places, records, done = list[int](), list[EpochRecord](), 0
        for trained in (epochs[model] for model in way if epochs.get(model)):
            places += [done + record.epoch for record in trained]
            records += trained
            done += trained[-1].epochs
        last = max(last, done)
        values = [_finite(main_metric(r) if is_metric else getattr(r, field)) for r in records]
        if any(value is not None for value in values):
            line = _trace("scatter", role, places, values, role)
            line["mode"] = "lines+markers" if len(records) <= MARKERS_UP_TO else "lines"
            traces.append(line | {"hovertemplate": f"epoch %{{x}}: %{{y:{form}}}<extra>{role}</extra>"})
    if goal is not None and math.isfinite(goal.limit):
        line = _trace("scatter", "budget", [1, max(last, 2)], [goal.limit] * 2, "budget")
        traces.append(line | {"mode": "lines", "hovertemplate": f"budget: %{{y:{form}}}<extra></extra>"})
    percent = {"tickformat": ".0%"} if is_metric else {"tickformat": "~s", "rangemode": "tozero"}
    xaxis = {**_axis("epoch"), "range": [0.6, max(last, 2) + 0.4], "showgrid": False, "tickformat": "d"}
    xaxis |= {"dtick": 1} if last <= 12 else {"nticks": 9}
    return {"data": traces, "layout": _layout(260, xaxis=xaxis, yaxis={**_axis(""), **percent})}


def per_class(evaluations: Mapping[str, EvaluationRecord]) -> Figure:
    """Return the main metric of each class, wide and narrow side by side, the first class on top."""
    names = class_names(evaluations)
    places = list(range(len(names)))
    traces = []
    # Plotly stacks a group of horizontal bars upwards: the axis is reversed, so wide is on top.
    for role in (role for role in ("wide", "narrow") if role in evaluations):
        values = [_finite(evaluations[role].per_class.get(name)) for name in names]
        bars = _trace("bar", role, values, places, role) | {"orientation": "h"}
        bars |= {"customdata": [[label(name)] for name in names]}
        traces.append(bars | {"hovertemplate": f"%{{customdata[0]}}: %{{x:.1%}}<extra>{role}</extra>"})
    yaxis = {"tickvals": places, "ticktext": [shortened(name) for name in names], "automargin": True}
    yaxis |= {"autorange": "reversed", "showgrid": False}
    layout = _layout(70 + 36 * len(names), yaxis=yaxis, xaxis={"range": [0, 1.01], "tickformat": ".0%"})
    return {"data": traces, "layout": layout | {"barmode": "group", "bargap": 0.3, "bargroupgap": 0.08}}


def curve(records: Mapping[str, CurveRecord]) -> Figure:
    """Return precision over recall of one class, wide and narrow."""
    traces = []
    for role in (role for role in ("wide", "narrow") if role in records):
        found = records[role]
        line = _trace("scatter", role, found.recall, [_finite(value) for value in found.precision], role)
        hover = f"recall %{{x:.2f}}, precision %{{y:.2f}}<extra>{role}</extra>"
        traces.append(line | {"mode": "lines", "hovertemplate": hover})
    xaxis, yaxis = ({**_axis(title), "range": [0, 1.02], "tickformat": ".1f"} for title in ("recall", "precision"))
    return {"data": traces, "layout": _layout(220, xaxis=xaxis, yaxis=yaxis)}


def latency(records: Sequence[tuple[str, Mapping[str, LatencyRecord]]]) -> Figure:
    """Return the median latency of each setting (its name and its records by model), with a whisker up to p95."""
    places = list(range(len(records)))
    traces = []
    for role in ("wide", "narrow"):
        pairs = [(place, found[role]) for place, (_, found) in enumerate(records) if role in found]
        if not pairs:
            continue
        medians = [_finite(record.median_ms) for _, record in pairs]
        bars = _trace("bar", role, [place for place, _ in pairs], medians, role)
        above = [_finite(record.p95_ms - record.median_ms) for _, record in pairs]
        bars["error_y"] = {"type": "data", "array": above, "symmetric": False, "arrayminus": [0] * len(above)}
        bars["customdata"] = [[_finite(record.p95_ms)] for _, record in pairs]
        hover = f"median %{{y:.3~g}} ms, p95 %{{customdata[0]:.3~g}} ms<extra>{role}</extra>"
        traces.append(bars | {"hovertemplate": hover})
    xaxis = {"tickvals": places, "ticktext": [wrapped(name) for name, _ in records], "showgrid": False}
    xaxis |= {"range": [-0.7, len(records) - 0.3], "automargin": True, "tickangle": 0}
    layout = _layout(320, xaxis=xaxis, yaxis={**_axis("milliseconds"), "rangemode": "tozero"})
    return {"data": traces, "layout": layout | {"barmode": "group", "bargap": 0.45, "bargroupgap": 0.08}}


def frontier(points: Sequence[tuple[str, float, float]], line: Sequence[tuple[float, float]], metric: str) -> Figure:
    """Return accuracy against milliseconds: all networks (name, ms, value), and a line through the frontier."""
    joined = _trace("scatter", "narrow", [ms for ms, _ in line], [_finite(value) for _, value in line], "frontier")
    joined |= {"mode": "lines", "hoverinfo": "skip"}
    traces = [joined]
    for role in ("wide", "narrow"):
        own = [point for point in points if (point[0] == "wide") == (role == "wide")]
        if own:
            dots = _trace("scatter", role, [ms for _, ms, _ in own], [_finite(value) for *_, value in own], role)
            names = [label(name) for name, *_ in own]
            hover = "%{text}: %{x:.3~g} ms, %{y:.1%}<extra></extra>"
            traces.append(
                dots | {"mode": "markers+text", "text": names, "textposition": "top left", "hovertemplate": hover}
            )
    yaxis = {**_axis(metric), "tickformat": ".0%"}
    xaxis = {**_axis("median milliseconds"), "rangemode": "tozero"}
    return {"data": traces, "layout": _layout(420, xaxis=xaxis, yaxis=yaxis)}


def class_names(evaluations: Mapping[str, EvaluationRecord]) -> list[str]:
    """Return the classes of all evaluations, each once, in order."""
    return list(dict.fromkeys(name for record in evaluations.values() for name in record.per_class))


def main_metric(record: EpochRecord) -> float | None:
    """Return the task's main metric, which is the first."""
    return next(iter(record.metrics.values()), None)


def label(name: str) -> str:
    """Return `name` escaped for plotly.js, which interprets labels as markup."""
    return html.escape(name, quote=False)


def shortened(name: str) -> str:
    """Return a tick label; a long path keeps its end, which distinguishes layers."""
    return label(name if len(name) <= LABEL_LENGTH else "\u2026" + name[1 - LABEL_LENGTH :])


def wrapped(name: str) -> str:
    """Return a tick label on several lines, since labels on a phone have little room."""
    backend, *rest = name.split(", ")
    return "<br>".join(label(part) for part in (*backend.split(" "), *rest))


def _trace(kind: str, role: str, x: Sequence[Any], y: Sequence[Any], name: str) -> dict[str, Any]:
    return {"type": kind, "x": list(x), "y": list(y), "name": name, "meta": {"role": role}}


def _axis(title: str) -> dict[str, Any]:
    return {"title": {"text": title}, "automargin": True} if title else {"automargin": True}


def _layout(height: int, *, xaxis: dict[str, Any], yaxis: dict[str, Any] | None = None) -> dict[str, Any]:
    # With fixed ranges a swipe on a phone scrolls the page.
    layout: dict[str, Any] = {
        "height": height,
        "showlegend": False,
        "hovermode": "closest",
        "dragmode": False,
    }
    layout["margin"] = {"l": 48, "r": 18, "t": 12, "b": 44}
    layout["xaxis"] = {"fixedrange": True, "zeroline": False, **xaxis}
    return layout | {"yaxis": {"fixedrange": True, "zeroline": False, "ticklabelstandoff": 4, **(yaxis or {})}}


def _finite(value: float | None) -> float | None:
    """Return `value`, or None if it is not finite: JSON has no NaN, and None leaves a gap in the figure."""
    return value if value is not None and math.isfinite(value) else None
