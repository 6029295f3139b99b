"""The summary of a run: a title, a few sentences, and the checks that it passed or failed."""

import dataclasses
import math
from collections.abc import Iterable

from prunus.records import GateRecord, QuantizationRecord
from prunus.report import words
from prunus.report.comparison import Comparison, Goal, goals, law, law_tolerance
from prunus.report.facts import Facts
from prunus.report.family import members


@dataclasses.dataclass(frozen=True, kw_only=True)
class Check:
    """One check of a run; `passed` is None if it was not measured."""

    name: str
    passed: bool | None
    text: str


def title(rows: Iterable[Comparison], facts: Facts) -> tuple[str, ...]:
    """Return the parts of the result for one line, or the run's name if nothing can be compared yet."""
    found = {row.quantity: row for row in reversed(list(rows)) if row.wide is not None and row.narrow is not None}
    parts = []
    if "macs" in found:
        parts.append(f"{found['macs'].against} of the MACs")
    if "latency" in found:
        parts.append(f"{found['latency'].against} of the latency")
    if "metric" in found:
        parts.append(f"{found['metric'].label} {found['metric'].against}")
    return tuple(parts) or (facts.run.name if facts.run else "A run without records",)


def sentences(rows: Iterable[Comparison], facts: Facts) -> tuple[str, ...]:
    """Return the result in sentences; a quantity that is missing for one network is left out."""
    found: dict[str, list[Comparison]] = {}
    for row in rows:
        if row.wide is not None and row.narrow is not None:
            found.setdefault(row.quantity, []).append(row)
    told = [_metric(row, facts) for row in found.get("metric", [])]
    costs = found.get("macs", []) + found.get("params", [])
    if costs:
        told.append(f"{'It' if told else 'The narrow network'} needs {_listed(map(_cost, costs))}.")
    if "latency" in found:
        told.append(f"One input takes {_listed(map(_speed, found['latency']))}.")
    told += [_training(row, facts) for row in found.get("training_seconds", [])]
    if "wide" not in facts.evaluations and "narrow" in facts.evaluations:
        told.append("No wide network was evaluated in this run, so there is no accuracy to compare with.")
    return tuple(told) or ("This run has not recorded enough yet to compare a wide and a narrow network.",)


def _metric(row: Comparison, facts: Facts) -> str:
    narrow = facts.evaluations.get("narrow")
    where = f"On {narrow.images} images of the {facts.split} split" if narrow else f"On the {row.remark},"
    return (
        f"{where} the narrow network reaches {row.show(row.narrow)} {row.label}, "
        f"the wide one {row.show(row.wide)} ({row.against})."
    )


def _cost(row: Comparison) -> str:
    name = {"params": "parameters"}.get(row.quantity, row.label)
    return f"{row.show(row.narrow)} of {row.show(row.wide)} {name} ({row.against})"


def _speed(row: Comparison) -> str:
    return f"{row.show(row.narrow)} instead of {row.show(row.wide)} on {row.label} ({_faster(row)})"


def _faster(row: Comparison) -> str:
    if not row.wide or not row.narrow:
        return row.against
    factor = row.wide / row.narrow
    if 0.98 < factor < 1.02:
        return "equally fast"
    return f"{factor:.1f} times as fast" if factor > 1 else f"{1 / factor:.2f} times as long"


def _training(row: Comparison, facts: Facts) -> str:
    narrow, wide = row.show(row.narrow), f"{row.show(row.wide)} ({row.against})"
    if facts.run is not None and facts.run.starts_wide:
        wide = f"{wide}, whose weights it began with"
        return f"Training it, shrinking included, took {narrow} after the wide network's {wide}."
    return f"Training it, shrinking included, took {narrow}, the wide network {wide}."


def _listed(parts: Iterable[str]) -> str:
    *first, last = parts
    return f"{', '.join(first)} and {last}" if first else last


def checks(facts: Facts) -> tuple[Check, ...]:
    """Return the run's checks: budget, gate, parity of the exported networks, INT8, the law of removal."""
    family = [(member.model, goal) for member in members(facts) for goal in member.goals]
    limits = tuple(_budget(goal, model) for model, goal in family) or tuple(_budget(goal) for goal in goals(facts))
    gate = () if facts.gate is None else (_gate(facts.gate, facts),)
    integers = tuple(map(_quantization, facts.quantizations))
    told = (*(limits or (_no_budget(facts),)), *_of_stages(facts, limits), *gate)
    return (*told, _parity(facts), *integers, _law(facts))


def _gate(gate: GateRecord, facts: Facts) -> Check:
    judged = [each for each in facts.slices if each.verdict != "too small"]
    fallen = [each.name for each in judged if each.verdict == "fell"]
    allowed = f"more than {gate.max_drop:g}{words.GAP}points"
    if gate.passed:
        doubtful = sum(each.verdict == "in doubt" for each in judged)
        text = f"passed: none of {len(judged)} slices dropped by {allowed} beyond doubt ({doubtful} in doubt)"
    else:
        more = f" and {len(fallen) - 3} more" if len(fallen) > 3 else ""
        text = f"failed: {', '.join(fallen[:3])}{more} dropped by {allowed}"
    return Check(name="Gate", passed=gate.passed, text=text)


def _quantization(record: QuantizationRecord) -> Check:
    name = f"INT8: {record.model} on {words.backend_name(record.backend)}"
    verdict, within = ("kept", "within") if record.passed else ("refused", "beyond")
    change = words.points(record.int8 - record.float32)
    text = f"{verdict}: {change} of {words.metric_name(record.metric)}, {within} {record.max_drop:g}{words.GAP}points"
    return Check(name=name, passed=record.passed, text=text)


def _of_stages(facts: Facts, limits: tuple[Check, ...]) -> Iterable[Check]:
    """Yield a check without a verdict per later stage with a budget: its budget is a share of the stage's initial
    network, which is not in the records."""
    recipe = facts.run.recipe if facts.run and limits else {}
    for stage in recipe.get("then") or ():
        if stage.get("shrink"):
            text = "not judged: it is one of the network that the stage begins with"
            yield Check(name=f"Budget of the stage {stage['name']}", passed=None, text=text)


def _no_budget(facts: Facts) -> Check:
    recipe = facts.run.recipe if facts.run else {}
    stages = [stage["name"] for stage in recipe.get("then") or () if stage.get("shrink")]
    text = f"only the stage {_listed(stages)} had one" if stages else "no budget was set in the recipe"
    return Check(name="Budget", passed=None, text=text)


def _budget(goal: Goal, model: str | None = None) -> Check:
    name = f"Budget: {goal.label}" if model is None else f"Budget of {model}: {goal.label}"
    if goal.reached is None:
        text = "not judged: a share of the wide network's, which was not measured" if math.isnan(goal.limit) else None
        return Check(name=name, passed=None, text=text or "not measured yet")
    asked = f" ({words.percent(goal.share)} of the wide network)" if goal.share is not None else ""
    verdict = f"met: {goal.show(goal.reached)} within" if goal.met else f"missed: {goal.show(goal.reached)} above"
    return Check(name=name, passed=goal.met, text=f"{verdict} {goal.show(goal.limit)}{asked}")


def _parity(facts: Facts) -> Check:
    if not facts.parities:
        return Check(name="Parity", passed=None, text="no exported network was compared with its source")
    failed = [record for record in facts.parities if not record.passed]
    if failed:
        where = ", ".join(f"{record.model} on {words.backend_name(record.backend)}" for record in failed)
        return Check(name="Parity", passed=False, text=f"failed: {where}")
    worst = max(record.max_rel_diff for record in facts.parities)
    text = f"passed: exported networks equal PyTorch to {words.tiny(worst)}"
    return Check(name="Parity", passed=True, text=text)


def _law(facts: Facts) -> Check:
    change = law(facts)
    if change is None:
        return Check(name="Removal", passed=None, text="no removal was measured")
    within = [cut.max_rel_diff <= cut.tolerance for cut in facts.shrinks]
    passed = all(within) and all(cut.passed for cut in facts.removals)
    verdict, bound = ("exact", "within") if passed else ("not exact", "beyond")
    text = f"{verdict}: the output changed by {words.tiny(change)}, {bound} {law_tolerance(facts):.3g}"
    return Check(name="Removal", passed=passed, text=text)
