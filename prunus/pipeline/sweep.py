"""`prunus.pipeline.sweep`: one recipe at several budgets, by any number of workers, and the resulting frontier.

Each budget is a run in a folder of its own, and the worker that holds the folder's lock works on it. Workers on many
machines can therefore share a folder without waiting for each other, and a run whose worker died resumes from its
checkpoint. The result of each run is recorded in a journal of optuna beside the folders, which optuna's tools can read.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import prunus.recipe
from prunus.deploy import benchmark
from prunus.errors import BudgetError, FolderInUseError, RecipeError, RecordError
from prunus.interrupt import check
from prunus.models.weights import Weights
from prunus.pipeline.context import Watch
from prunus.pipeline.journal import Journal
from prunus.pipeline.recipe import NARROW, WIDE, Recipe
from prunus.pipeline.run import run
from prunus.pipeline.run_folder import begun_with, refuse_other_recipe
from prunus.records import EvaluationRecord, LatencyRecord, RunRecord, lines
from prunus.report.frontier import Point
from prunus.report.frontier import write as write_frontier
from prunus.surgery.save import WEIGHTS
from prunus.train.lock import lock

BOUNDS = ("macs", "params", "latency", "latency_ms")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Swept:
    """The result of a worker.

    Attributes:
        folder: folder of the sweep.
        done: budgets whose run is complete.
        failed: budgets that cannot be met, with the reason.
        elsewhere: budgets that other workers are working on.
        report: path of the frontier's report; None if other workers are not done yet, or no run is complete.
    """

    folder: Path
    done: tuple[float, ...]
    failed: dict[float, str]
    elsewhere: tuple[float, ...]
    report: Path | None


def sweep(
    recipe: str | Path,
    budgets: Sequence[float],
    overrides: Sequence[str] = (),
    *,
    bound: str | None = None,
    watch: Watch | None = None,
) -> Swept:
    """Run a recipe at each of `budgets` that no other worker is working on, and report the frontier when all are done.

    Start it on any number of machines, with the same arguments and a shared folder; start it again to resume.

    Args:
        recipe: the path of a YAML file.
        budgets: the values of `bound`, one per run.
        overrides: overrides of the recipe; `output` is the folder of the sweep, by default runs/<name>-sweep.
        bound: "macs", "params", "latency" or "latency_ms"; None: the bound of the recipe's budget.
        watch: shows the progress.

    Raises:
        RecipeError: no budget, one budget twice, no `bound` although the recipe's budget does not have exactly one, or
            a folder that holds a run of another recipe.
        PrunusError: a run is impossible for another reason than a budget that cannot be met.
    """
    planned = _planned(Path(recipe), budgets, overrides, bound)
    journal, failed = Journal(planned.folder), dict[float, str]()
    elsewhere, before = list(planned.runs), 0
    while len(elsewhere) != before:  # repeat, so that the last worker also sees runs that others finished meanwhile
        before = len(elsewhere)
        elsewhere = [
            budget for budget in elsewhere if _is_elsewhere(budget, planned.runs[budget], journal, failed, watch)
        ]
    done = tuple(budget for budget, chosen in planned.runs.items() if _is_done(Path(chosen.output or "")))
    path = None
    if done and not elsewhere:
        path = _told(planned, done, failed)
    return Swept(folder=planned.folder, done=done, failed=failed, elsewhere=tuple(elsewhere), report=path)


def _is_elsewhere(
    budget: float, chosen: Recipe, journal: Journal, failed: dict[float, str], watch: Watch | None
) -> bool:
    """Complete the run of a budget and record the result; return whether another worker is working on it."""
    check()
    folder = Path(chosen.output or "")
    chosen = _with_wide(chosen)
    refuse_other_recipe(folder, prunus.recipe.describe(chosen))
    try:
        if not _is_done(folder):
            run(chosen, watch=watch)
        journal.tell(budget, *_values(folder))
    except FolderInUseError:
        return True
    except BudgetError as error:
        failed[budget] = str(error)
        journal.tell_failure(budget, str(error))
    return False


def _with_wide(chosen: Recipe) -> Recipe:
    """Return the recipe of a run with the wide network that another run of the sweep has trained, since its own would
    be the same. The recipe of a run that has already started is not changed."""
    folder = Path(chosen.output or "")
    if not chosen.starts_wide or chosen.baseline is not True:
        return chosen
    if begun_with(folder, "baseline") is None:
        path = next((str(path) for path in sorted(folder.parent.glob(f"*/{WIDE}/{WEIGHTS}"))), None)
    else:
        weights = begun_with(folder, "weights")
        path = weights.get("path") if isinstance(weights, Mapping) else None
        path = path if str(path).endswith(f"/{WIDE}/{WEIGHTS}") else None
    if path is None:
        return chosen
    return dataclasses.replace(chosen, baseline="untrained", weights=Weights(path=path), encoder_stage=None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Planned:
    folder: Path
    bound: str
    runs: dict[float, Recipe]  # by budget, the largest first


def _planned(recipe: Path, budgets: Sequence[float], overrides: Sequence[str], bound: str | None) -> _Planned:
    if not budgets or len(set(budgets)) != len(budgets):
        raise RecipeError(f"budgets are {list(budgets)}: give at least one, and none twice, as in 0.8 0.6 0.4 0.2")
    whole = prunus.recipe.load(Recipe, recipe, overrides)
    folder = Path(whole.output or f"runs/{whole.name}-sweep")
    bound = _bound(whole, bound)
    cleared = [f"shrink.budget.{name}=null" for name in BOUNDS if name != bound]
    needs_wide = whole.gate is not None or any(stage.distillation is not None for stage in whole.stages)
    runs = dict[float, Recipe]()
    for number, budget in enumerate(sorted(budgets, reverse=True)):
        value = int(budget) if budget > 1 and budget == round(budget) and bound != "latency_ms" else budget
        place = folder / f"{bound}-{budget:g}"
        own = [*cleared, f"shrink.budget.{bound}={value!r}", f"output={place}"]
        if whole.baseline is True and not needs_wide and not whole.starts_wide:
            # The wide network is for comparison only: the first run trains it. A run that has started keeps its value.
            begun = begun_with(place, "baseline")
            own.append(f"baseline={str(begun if isinstance(begun, bool) else not number).lower()}")
        runs[budget] = prunus.recipe.load(Recipe, recipe, [*overrides, *own])
    return _Planned(folder=folder, bound=bound, runs=runs)


def _bound(recipe: Recipe, bound: str | None) -> str:
    if recipe.shrink is None:
        raise RecipeError("a sweep varies the recipe's `shrink.budget`, and its shrink is null: give it one")
    if recipe.shrink.budgets:
        raise RecipeError(
            "the recipe trains a family of networks, whose budgets (shrink.budgets) take the place of the one that a "
            "sweep varies: run it as it is, or sweep with shrink.budgets=[]"
        )
    if bound is not None and bound not in BOUNDS:
        raise RecipeError(f"bound is {bound!r}; choose one of {', '.join(BOUNDS)}")
    given = [name for name in BOUNDS if getattr(recipe.shrink.budget, name) is not None]
    if bound is None and len(given) != 1:
        raise RecipeError(
            f"the recipe bounds {', '.join(given)}: name the quantity that the budgets bound, as in --bound {given[0]}"
        )
    return bound or given[0]


def _is_done(folder: Path) -> bool:
    return all((folder / name).is_file() for name in ("report.html", f"{NARROW}.onnx")) and bool(_evaluation(folder))


def _evaluation(folder: Path, model: str = NARROW) -> EvaluationRecord | None:
    found = [r for r in lines(folder) if isinstance(r, EvaluationRecord) and r.model == model]
    return found[-1] if found else None


def _values(folder: Path) -> tuple[float, float]:
    """Return the main metric of a run's narrow network, and its milliseconds on the first target."""
    evaluation = _evaluation(folder)
    timed = [r for r in lines(folder) if isinstance(r, LatencyRecord) and r.model == NARROW]
    if evaluation is None or not evaluation.metrics:
        raise RecordError(f"{folder} holds no evaluation of its narrow network: remove the folder, and start again")
    return next(iter(evaluation.metrics.values())), timed[0].median_ms if timed else math.inf


def _told(planned: _Planned, done: Sequence[float], failed: dict[float, str]) -> Path | None:
    """Time the networks of all budgets in turn and write the report; return None if another worker is doing so."""
    folders = {f"{planned.bound} {budget:g}": Path(planned.runs[budget].output or "") for budget in done}
    files = {name: folder / f"{NARROW}.onnx" for name, folder in folders.items()}
    first = next(iter(folders.values()))
    if _evaluation(first, WIDE) is not None and (first / f"{WIDE}.onnx").is_file():
        folders[WIDE], files[WIDE] = first, first / f"{WIDE}.onnx"
    recipe = planned.runs[done[0]]
    try:
        with lock(planned.folder):
            settings = dataclasses.replace(recipe.benchmark, measure_memory=False)
            timed = benchmark(files, _input_shape(first), settings, note=lambda text: None)
            points = [_point(record, folders[record.model], timed[0]) for record in timed if _same(record, timed[0])]
            return write_frontier(planned.folder, recipe.name, points, failed, planned.bound)
    except FolderInUseError:
        return None


def _same(record: LatencyRecord, first: LatencyRecord) -> bool:
    """Whether a record is of the first target."""
    return (record.backend, record.threads, record.input_shape) == (first.backend, first.threads, first.input_shape)


def _point(record: LatencyRecord, folder: Path, first: LatencyRecord) -> Point:
    found = _evaluation(folder, WIDE if record.model == WIDE else NARROW)
    assert found is not None
    name, value = next(iter(found.metrics.items()))
    return Point(
        name=record.model,
        metric=name,
        value=value,
        median_ms=record.median_ms,
        p95_ms=record.p95_ms,
        macs=found.macs,
        params=found.params,
        where=f"{first.backend}, {first.threads} thread(s)",
        folder=folder.name,
    )


def _input_shape(folder: Path) -> tuple[Any, ...]:
    found = [record for record in lines(folder) if isinstance(record, RunRecord)]
    return tuple(found[-1].input_shape[1:])
