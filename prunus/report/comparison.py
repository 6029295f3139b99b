"""The comparison of wide and narrow by quantity, and whether the budget was met."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from prunus.records import EXACT
from prunus.report import words
from prunus.report.facts import MODELS, Facts, Setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """One quantity of both networks; None if it was not measured."""

    quantity: str  # "metric", "macs", "params", "latency", "training_seconds"
    label: str
    wide: float | None
    narrow: float | None
    show: Callable[[float | None], str]
    remark: str = ""

    @property
    def ratio(self) -> float | None:
        """Narrow over wide; None if either is missing or the wide value is zero."""
        if self.wide is None or self.narrow is None or self.wide == 0:
            return None
        return self.narrow / self.wide

    @property
    def against(self) -> str:
        """Narrow relative to wide as text: percentage points for a metric, per cent for a cost."""
        if self.wide is None or self.narrow is None:
            return words.ABSENT
        if self.quantity == "metric":
            return words.points(self.narrow - self.wide)
        return words.percent(self.ratio)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Goal:
    """One limit of the budget and the narrow network's value."""

    quantity: str
    label: str
    limit: float  # absolute, in the quantity's own unit
    share: float | None  # as in the recipe, if it is relative to the wide network
    reached: float | None
    show: Callable[[float | None], str]

    @property
    def met(self) -> bool | None:
        """Whether the narrow network is within the limit; None if it was not measured."""
        return None if self.reached is None else self.reached <= self.limit * (1 + 1e-9)


def compare(facts: Facts) -> tuple[Comparison, ...]:
    """Return the headline quantities: the main metric, MACs, parameters, training seconds, latencies."""
    costs = (_cost(facts, "macs", "MACs"), _cost(facts, "params", "Parameters"))
    training = Comparison(quantity="training_seconds", label="Training", show=words.seconds, **_training(facts))
    return (_metric(facts), *costs, training, *_latency(facts))


def _metric(facts: Facts) -> Comparison:
    """Return the task's main metric from the evaluations; without any, that of the last epoch, with a remark."""
    found = {model: next(iter(r.metrics.items()), None) for model, r in facts.evaluations.items()}
    remark = f"{facts.split} split"
    if not any(found.values()):
        last = {model: epochs[-1].metrics for model, epochs in facts.epochs.items() if epochs}
        found = {model: next(iter(metrics.items()), None) for model, metrics in last.items()}
        remark = "validation split, last epoch so far"
    pairs = {model: pair for model, pair in found.items() if pair is not None}
    name = next((pair[0] for pair in pairs.values()), None)
    values = {model: pairs[model][1] if model in pairs else None for model in MODELS}
    label = words.metric_name(name) if name else "Metric"
    return Comparison(quantity="metric", label=label, show=words.share, remark=remark if name else "", **values)


def _cost(facts: Facts, field: str, label: str) -> Comparison:
    values: dict[str, Any] = {}
    for model in MODELS:
        evaluation, epochs = facts.evaluations.get(model), facts.epochs.get(model)
        source: Any = evaluation or (epochs[-1] if epochs else None)
        values[model] = getattr(source, field) if source is not None else None
    if values["wide"] is None and facts.shrinks:
        # No wide network was trained: use the narrow network's size before its first cut.
        values["wide"] = getattr(facts.shrinks[0], f"{field}_before")
        values["remark"] = "wide: as built, not trained"
    show = words.count if values["wide"] is None else words.count_like(values["wide"])
    return Comparison(quantity=field, label=label, show=show, **values)


def _training(facts: Facts) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for model in MODELS:
        evaluation, epochs = facts.evaluations.get(model), facts.epochs.get(model)
        if evaluation is not None:
            values[model] = evaluation.training_seconds
        else:
            values[model] = sum(epoch.seconds for epoch in epochs) if epochs else None
    counts = {model: len(facts.epochs.get(model, ())) for model in MODELS}
    if counts["wide"] and counts["narrow"]:
        same = counts["wide"] == counts["narrow"]
        values["remark"] = (
            f"{counts['narrow']} epochs each" if same else (f"{counts['wide']} epochs wide, {counts['narrow']} narrow")
        )
    return values


def _latency(facts: Facts) -> Iterable[Comparison]:
    for setting, records in facts.latencies.items():
        yield Comparison(
            quantity="latency",
            label=setting_name(setting, facts),
            show=words.milliseconds,
            remark=f"{setting.device}, {threads(setting.threads)}",
            **{model: records[model].median_ms if model in records else None for model in MODELS},
        )


def threads(number: int) -> str:
    """Return `1 thread`, `2 threads`."""
    return f"{number} thread{'' if number == 1 else 's'}"


def setting_name(setting: Setting, facts: Facts) -> str:
    """Return the backend's name, with the fields that distinguish it from the run's other settings."""
    same = [other for other in facts.latencies if other.backend == setting.backend]
    told = {
        "device": setting.device,
        "threads": threads(setting.threads),
        "precision": setting.precision,
        "input_shape": words.shape(setting.input_shape),
    }
    apart = [text for field, text in told.items() if len({getattr(other, field) for other in same}) > 1]
    return ", ".join([words.backend_name(setting.backend), *apart])


def goals(facts: Facts, budget: Mapping[str, Any] | None = None) -> tuple[Goal, ...]:
    """Return the limits of `budget`, or of the recipe's; values up to 1 are relative to the wide network."""
    settings = budget or (_budget(facts.run.recipe) if facts.run else None)
    if settings is None:
        return ()
    settings = settings.get("init_args", settings)
    found = list[Goal]()
    for row in compare(facts):
        limit, relative = _limit(settings, row.quantity)
        if limit is None or any(goal.quantity == row.quantity for goal in found):  # latency: the first backend only
            continue
        absolute = (limit * row.wide if row.wide is not None else math.nan) if relative else limit
        found.append(
            Goal(
                quantity=row.quantity,
                label=f"latency, {row.label}" if row.quantity == "latency" else row.label,
                limit=absolute,
                share=limit if relative else None,
                reached=None if math.isnan(absolute) else row.narrow,
                show=row.show,
            )
        )
    return tuple(found)


def _limit(settings: Mapping[str, Any], quantity: str) -> tuple[float | None, bool]:
    """Return the budget's limit, if any, and whether it is a share of the wide network's value."""
    key = "latency_ms" if quantity == "latency" and settings.get("latency") is None else quantity
    limit = settings.get(key) if quantity in ("macs", "params", "latency") else None
    if isinstance(limit, bool) or not isinstance(limit, int | float):
        return None, False
    return limit, key == "latency" or (key != "latency_ms" and limit <= 1)


def _budget(recipe: dict[str, Any]) -> dict[str, Any] | None:
    """Return the first `budget` in `recipe`, at any depth."""
    for key, value in recipe.items():
        if isinstance(value, dict):
            found = value if key == "budget" else _budget(value)
            if found is not None:
                return found
    return None


def law(facts: Facts) -> float | None:
    """Return the largest relative change of the output over all removals of zero channels."""
    changes = [record.max_rel_diff for record in facts.removals]
    changes += [record.max_rel_diff for record in facts.shrinks]
    # NaN compares false with everything, so `max` could miss it.
    return next((change for change in changes if math.isnan(change)), max(changes, default=None))


def law_tolerance(facts: Facts) -> float:
    """Return the largest change that counted as rounding: the fixed bound, or a network's own rounding if larger."""
    found = [record.tolerance for record in facts.removals] + [record.tolerance for record in facts.shrinks]
    return max(found, default=EXACT["float32"])
