"""Numbers and names as text for a reader: `0.4213` is `42.1 %`, `onnxruntime` is `ONNX Runtime`."""

import math
from collections.abc import Callable, Mapping
from typing import TypeGuard

ABSENT = "n/a"
MINUS = "\u2212"
GAP = "\u00a0"  # keeps a number and its unit on one line
BACKENDS = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "tensorrt": "TensorRT", "torch": "PyTorch"}
PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
CLASS_METRICS = {
    "miou": "IoU",
    "map": "AP",
    "map50": "AP50",
    "map75": "AP75",
    "ap40_moderate": "AP (moderate)",
}  # a mean over classes, and the metric of one class
NETWORKS = {
    f"scratch-{kind}": f"narrow, from scratch with {name}"
    for kind, name in {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW"}.items()
}
METRICS = {
    "miou": "mIoU",
    "map": "mAP",
    "map50": "mAP50",
    "map75": "mAP75",
    "ap40_easy": "AP40 easy",
    "ap40_moderate": "AP40 moderate",
    "ap40_hard": "AP40 hard",
    "top1": "top-1 accuracy",
    "top5": "top-5 accuracy",
    "mean": "mean over tasks",
}


def backend_name(backend: str) -> str:
    """Return the backend's official spelling; an unknown backend keeps its name."""
    return BACKENDS.get(backend, backend)


def network_name(network: str) -> str:
    """Return a network's name for the reader."""
    return NETWORKS.get(network, network)


def metric_name(metric: str) -> str:
    """Return the metric's usual spelling, after the name of its sub-task, if any; without underscores if it is unknown.

    A list of metrics separated by commas is spelt one by one.
    """
    return _spelt(metric, METRICS)


def class_metric_name(metric: str) -> str:
    """Return the name of the metric for one class: `miou` is the mean of `IoU`."""
    return _spelt(metric, METRICS | CLASS_METRICS)


def _spelt(metric: str, names: Mapping[str, str]) -> str:
    parts = map(task_and_metric, metric.split(", "))
    return ", ".join(f"{task} {names.get(own, own.replace('_', ' '))}".strip() for task, own in parts)


def task_and_metric(metric: str) -> tuple[str, str]:
    """Return the sub-task and its metric: "road" and "f0.5" for "road.f0.5"; "" without a sub-task."""
    task, _, own = metric.partition(".")
    return (task, own) if own and not own[0].isdigit() else ("", metric)


def share(value: float | None) -> str:
    """Return a number of [0, 1] as a percentage with three figures: `0.4213` is `42.1 %`."""
    if not _printable(value):
        return _odd(value)
    percent = 100 * value
    return f"{percent:.2f}{GAP}%" if 0 < abs(percent) < 10 else f"{percent:.1f}{GAP}%"


def percent(value: float | None) -> str:
    """Return a ratio in per cent without decimals (one below 9.5 %), for a sentence: `0.3849` is `38 %`."""
    if not _printable(value):
        return _odd(value)
    return f"{100 * value:.0f}{GAP}%" if abs(value) >= 0.095 else f"{100 * value:.1f}{GAP}%"


def agreement(value: float | None) -> str:
    """Return a share close to one; a share below one is never rounded up to 100 %."""
    if not _printable(value):
        return _odd(value)
    text = f"{100 * value:.3f}"
    return f"over 99.999{GAP}%" if value < 1 and text == "100.000" else f"{text}{GAP}%"


def points(difference: float | None) -> str:
    """Return a difference of two numbers of [0, 1] in signed percentage points."""
    if not _printable(difference):
        return _odd(difference)
    text = f"{abs(100 * difference):.1f}"
    if float(text) == 0:
        return f"\u00b10.0{GAP}points"
    return f"{'+' if difference > 0 else MINUS}{text}{GAP}points"


def count(value: float | None) -> str:
    """Return a count with three figures and a unit prefix: `1_834_000` is `1.83 M`."""
    return count_like(value)(value)


def count_like(reference: float | None) -> Callable[[float | None], str]:
    """Return a `count` that gives every value the prefix of `reference`, so that values can be compared.

    If `1_204_000_000` is `1.20 G`, then `457_000_000` is `0.457 G`.
    """
    # From 999.5 on the next prefix is used, since three figures would show 1000 of the smaller one.
    size, prefix = next(
        ((size, prefix) for size, prefix in PREFIXES if abs(reference or 0) >= 0.9995 * size), (1.0, "")
    )

    def show(value: float | None) -> str:
        if not _printable(value):
            return _odd(value)
        return f"{figures(value / size)}{GAP}{prefix}" if prefix else f"{value:g}"

    return show


def figures(value: float) -> str:
    """Return three significant figures without an exponent."""
    if value == 0:
        return "0"
    decimals = 2 - math.floor(math.log10(abs(float(f"{value:.2e}"))))
    return f"{value:.{max(0, min(decimals, 6))}f}"


def milliseconds(value: float | None) -> str:
    """Return a time in milliseconds: `9.4321` is `9.43 ms`."""
    return f"{figures(value)}{GAP}ms" if _printable(value) else _odd(value)


def megabytes(value: float | None) -> str:
    """Return a size in megabytes: `182.3` is `182 MB`."""
    return f"{figures(value)}{GAP}MB" if _printable(value) else _odd(value)


def seconds(value: float | None) -> str:
    """Return a duration of seconds: `125.3` is `2 min 5 s`."""
    if not _printable(value):
        return _odd(value)
    if value < 59.95:
        return f"{figures(value)}{GAP}s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes}{GAP}min {rest}{GAP}s"
    return f"{minutes // 60}{GAP}h {minutes % 60}{GAP}min"


def tiny(value: float | None) -> str:
    """Return a small difference: `3.1e-07`."""
    if not _printable(value):
        return _odd(value)
    return "0" if value == 0 else f"{value:.1e}"


def number(value: float | None, places: int = 4) -> str:
    """Return a plain number, for instance a loss."""
    return f"{value:.{places}f}" if _printable(value) else _odd(value)


def shape(sizes: tuple[int, ...]) -> str:
    """Return a tensor's shape, as `1 x 3 x 128 x 256` with the multiplication sign."""
    return " \u00d7 ".join(str(size) for size in sizes)


def _printable(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)


def _odd(value: float | None) -> str:
    return ABSENT if value is None else str(value)
