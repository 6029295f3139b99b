"""The picture of `latency_model.py` as an SVG file: predictions against measurements, and what budgets keep."""

from collections.abc import Sequence
from typing import Any

Row = dict[str, Any]
NETWORKS = {
    "ERFNet": "#e6550d",
    "ResNet-18": "#3182bd",
    "ResNet-50": "#17becf",
    "MobileNetV2": "#31a354",
    "DeiT-tiny": "#756bb1",
}
SIDE, MARGIN, TOP = 300, 46, 40  # pixels
ARMS = {"by_macs": "#bdbdbd", "solved": "#d62728"}
SHARES = (0.7, 0.5, 0.3)


def picture(rows: Sequence[Row], backend: str) -> str:
    """Return three panels for one backend.

    Milliseconds predicted by the latency model over those measured; the same predicted by a straight line in
    multiply-adds; and the share of the importance that is kept at 70, 50 and 30 % of the latency, by multiply-adds
    (grey) and solved (red). Milliseconds are divided by the largest ones measured of the network.
    """
    own = [row for row in rows if row["backend"] == backend]
    width, height = 3 * SIDE + 110, SIDE + 16
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" '
    return "\n".join(
        [
            head + 'font-size="11">',
            f'<rect width="{width}" height="{height}" fill="white"/>',
            *scatter(own, "predicted", "latency model: predicted over measured", 0),
            *scatter(own, "by_macs", "line in multiply-adds: predicted over measured", SIDE),
            *bars(own, "importance kept at 70, 50, 30 % of the latency", 2 * SIDE),
            *legend(3 * SIDE),
            "</svg>",
            "",
        ]
    )


def scatter(rows: Sequence[Row], key: str, title: str, left: int) -> list[str]:
    """Return a point per narrow version, with the diagonal on which prediction and measurement agree."""
    side = SIDE - MARGIN - 14
    bottom = TOP + side
    parts = [f'<text x="{left + 14}" y="24" font-weight="bold">{title}</text>', frame(left, side)]
    parts.append(f'<path d="M{left + MARGIN} {bottom}l{side} {-side}" stroke="#999" stroke-dasharray="4 3"/>')
    parts.append(f'<text x="{left + MARGIN}" y="{bottom + 16}">measured, share of the slowest version</text>')
    for network, colour in NETWORKS.items():
        own = [row for row in rows if row["network"] == network and row["kind"] == "random"]
        largest = max((row["measured"] for row in own), default=1.0)
        for row in own:
            x, y = (side * min(max(value / largest, 0.0), 1.05) for value in (row["measured"], row[key]))
            parts.append(f'<circle cx="{left + MARGIN + x:.1f}" cy="{bottom - y:.1f}" r="2.2" fill="{colour}"/>')
    return parts


def bars(rows: Sequence[Row], title: str, left: int) -> list[str]:
    """Return two bars per network and budget."""
    side = SIDE - MARGIN - 14
    bottom, wide = TOP + side, side / (4 * len(NETWORKS) * len(SHARES) / 3)
    parts = [f'<text x="{left + 14}" y="24" font-weight="bold">{title}</text>', frame(left, side)]
    for level in (0.5, 1.0):
        parts.append(f'<text x="{left + 16}" y="{bottom - level * side + 4:.1f}">{level:.0%}</text>')
    found = {(row["network"], row["share"]): row for row in rows if row["kind"] == "budget" and "solved" in row}
    for place, network in enumerate(NETWORKS):
        start = left + MARGIN + place * side / len(NETWORKS) + 3
        line = bottom + 13 + 11 * (place % 2)  # long names side by side would overlap
        parts.append(f'<text x="{start:.1f}" y="{line}" font-size="9">{network}</text>')
        for number, share in enumerate(SHARES):
            for nth, (arm, colour) in enumerate(ARMS.items()):
                if (network, share) in found:
                    high = side * found[network, share][arm]["kept"]
                    x = start + (3 * number + nth) * wide / 2.4
                    parts.append(
                        f'<rect x="{x:.1f}" y="{bottom - high:.1f}" width="{wide / 2.6:.1f}" height="{high:.1f}" '
                        f'fill="{colour}"/>'
                    )
    return parts


def frame(left: int, side: int) -> str:
    """Return a panel's axes."""
    return f'<path d="M{left + MARGIN} {TOP}v{side}h{side}" stroke="#444" fill="none"/>'


def legend(left: int) -> list[str]:
    """Return the colours' names."""
    colours = {**NETWORKS, "by multiply-adds": ARMS["by_macs"], "solved": ARMS["solved"]}
    parts = []
    for number, (name, colour) in enumerate(colours.items()):
        y = TOP + 18 * number
        parts.append(f'<rect x="{left}" y="{y - 8}" width="10" height="10" fill="{colour}"/>')
        parts.append(f'<text x="{left + 16}" y="{y + 1}">{name}</text>')
    return parts
