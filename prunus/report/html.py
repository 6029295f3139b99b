"""report.html: one self-contained file that shows a run; it opens offline and can be sent to a colleague."""

import base64
import contextlib
import functools
import gzip
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import markupsafe
import plotly.offline

from prunus import records
from prunus.decoding import MIB, SETTINGS, DecodingError, read_bytes
from prunus.errors import RecordError
from prunus.records import NoteRecord, Record
from prunus.report import headline, plots, words
from prunus.report.comparison import Goal, compare, goals, law, law_tolerance, setting_name, threads
from prunus.report.facts import MODELS, Facts, gather
from prunus.report.family import members, training_seconds
from prunus.writing import write_whole

FILE_NAME = "report.html"
MOST_PICTURE = 64 * MIB
MOST_CURVES = 12  # number of classes whose precision and recall are drawn
HERE = Path(__file__).parent
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Fields of EpochRecord ("metric": the main one) and their labels.
BY_EPOCH = {"macs": "MACs", "channels": "Channels alive", "metric": "Metric", "seconds": "Seconds per epoch"}


def write(folder: Path) -> Path:
    """Write `folder/report.html` from the records and images in `folder` and return its path.

    The file contains everything that it shows, including plotly.js, and loads nothing from the network. A section
    without records says so. An older report is replaced only by a complete new one. A record that cannot be shown is
    left out, and the notes name it.

    Raises:
        RecordError: `folder` holds no records, or the report cannot be written there.
    """
    folder = Path(folder)
    path, content = folder / FILE_NAME, page(*records.readable(folder), folder).encode("utf-8", "backslashreplace")
    try:
        write_whole(path, content)
    except OSError as error:
        raise RecordError(
            f"{path} cannot be written ({error.strerror or error}): free some space there or allow writing, "
            f"then run `prunus report {folder}`"
        ) from error
    return path


def page(found: Sequence[Record], problems: Sequence[str], folder: Path) -> str:
    """Return the page of the records `found`; records that cannot be shown are left out, and the notes name them."""
    try:
        return render(_gathered(found, problems), folder)
    except Exception as error:  # any error caused by an unusual record: find its kind
        kinds = {type(record): None for record in found}
        shown, said = list[Record](), list(problems)
        for kind in kinds:
            more = [record for record in found if isinstance(record, kind)]
            try:
                render(_gathered([*shown, *more], said), folder)
            except Exception as own:
                said.append(f"{len(more)} records of the kind {kind.kind} cannot be shown: {type(own).__name__}: {own}")
            else:
                shown += more
        if len(said) == len(problems):
            raise RecordError(f"the report of {folder} cannot be made: {error!r}") from error
        return render(_gathered(shown, said), folder)


def _gathered(found: Sequence[Record], problems: Sequence[str]) -> Facts:
    return gather([*found, *(NoteRecord(text=f"Left out: {problem}") for problem in problems)])


def render(facts: Facts, folder: Path) -> str:
    """Return the page of `facts`; images and the recipe's text are read from `folder`."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"name": words.backend_name, "raw": _raw}
    return environment.get_template("template.html").render(context(facts, folder))


def context(facts: Facts, folder: Path) -> dict[str, Any]:
    """Return the template's variables."""
    rows = compare(facts)
    return {
        "facts": facts,
        "words": words,
        "models": MODELS,
        "rows": rows,
        "title": headline.title(rows, facts),
        "sentences": headline.sentences(rows, facts),
        "checks": headline.checks(facts),
        "goals": goals(facts),
        "law": law(facts),
        "law_tolerance": law_tolerance(facts),
        "metric_label": rows[0].label,
        "class_metric": class_metric(facts),
        "columns": math.ceil(len(rows) / math.ceil(len(rows) / 6)),
        "classes": plots.class_names(facts.evaluations),
        "settings": [(setting_name(s, facts), s, found) for s, found in facts.latencies.items()],
        "threads": threads,
        "figures": figures(facts),
        "by_epoch": BY_EPOCH | {"metric": f"{rows[0].label}, validation"},
        "stages": stages(facts),
        "family": members(facts),
        "family_seconds": training_seconds(facts),
        "curves": list(facts.curves)[:MOST_CURVES],
        "gallery": [_sample(sample, folder) | {"apart": sample.disagreement} for sample in facts.gallery],
        "samples": [_sample(sample, folder) for sample in facts.samples],
        "recipe": _recipe(facts, folder),
        "style": own_file("style.css"),
        "script": own_file("report.js"),
        "plotly": plotly_js(),
    }


def stages(facts: Facts) -> tuple[records.EvaluationRecord, ...]:
    """Return the evaluation of each stage's network, if there are more than a wide and a narrow network."""
    family = {record.model for record in facts.family}
    found = tuple(record for model, record in facts.evaluations.items() if model not in family - set(MODELS))
    return found if {record.model for record in found} - set(MODELS) else ()


def class_metric(facts: Facts) -> str:
    """Return the name of the metric per class: "IoU" for "mIoU"; with several tasks, the first metric of each."""
    metrics = list(next((record.metrics for record in facts.evaluations.values()), {}))
    first = {words.task_and_metric(name)[0]: name for name in reversed(metrics)}
    if len(first) > 1:
        first.pop("", None)  # the mean over the tasks has no classes
    return words.class_metric_name(", ".join(reversed(first.values()))) if first else "Metric"


def figures(facts: Facts) -> dict[str, plots.Figure]:
    """Return the figures for which there are records, by name."""
    found: dict[str, plots.Figure] = {}
    if facts.widths is not None and facts.widths.layers:
        found["widths"] = plots.widths(facts.widths)
    limits: dict[str, Goal] = {goal.quantity: goal for goal in goals(facts)}
    if facts.epochs:
        found |= {name: plots.by_epoch(facts.epochs, name, limits.get(name)) for name in BY_EPOCH}
    if plots.class_names(facts.evaluations):
        found["classes"] = plots.per_class(facts.evaluations)
    if facts.latencies:
        named = [(setting_name(setting, facts), pair) for setting, pair in facts.latencies.items()]
        found["latency"] = plots.latency(named)
    found |= {
        f"curve-{number}": plots.curve(pair) for number, pair in enumerate(list(facts.curves.values())[:MOST_CURVES])
    }
    return found


def _sample(sample: records.SampleRecord, folder: Path) -> dict[str, Any]:
    paths: Mapping[str, str | None] = {
        "image": sample.image,
        "truth": sample.truth,
        "wide": sample.wide,
        "narrow": sample.narrow,
    }
    return {"index": sample.index, "pictures": {name: _picture(path, folder) for name, path in paths.items()}}


def _picture(path: str | None, folder: Path) -> dict[str, str]:
    """Return a PNG as a data URI (`uri`), or the reason why there is none (`absent`)."""
    if path is None:
        return {"absent": "not part of this run"}
    file = folder / path
    # A record may only name files of its run: a report that is shared must not contain any other file.
    try:
        if not file.resolve().is_relative_to(folder.resolve()) or file.is_symlink():
            return {"absent": f"{path} lies outside the run folder"}
        content = read_bytes(file, MOST_PICTURE, follow=False)
    except (OSError, ValueError) as error:
        return {"absent": f"{path}: {getattr(error, 'strerror', None) or error}"}
    if not content.startswith(PNG_SIGNATURE):
        return {"absent": f"{path} is not a PNG file"}
    return {"uri": "data:image/png;base64," + base64.b64encode(content).decode("ascii")}


def _recipe(facts: Facts, folder: Path) -> str:
    """Return the recipe's text: the run's own YAML, else the recorded values as JSON."""
    with contextlib.suppress(OSError, DecodingError):
        return read_bytes(folder / "recipe.yaml", SETTINGS.size, follow=False).decode("utf-8", "replace")
    return json.dumps(facts.run.recipe, indent=2, ensure_ascii=False) if facts.run else ""


def own_file(name: str) -> markupsafe.Markup:
    """Return a file of this folder, for insertion without escaping."""
    return markupsafe.Markup((HERE / name).read_text(encoding="utf-8"))


@functools.cache
def plotly_js() -> str:
    """Return plotly.js, compressed from 4.8 MB to 1.9 MB; the page's script unpacks it with the browser's gzip."""
    packed = gzip.compress(plotly.offline.get_plotlyjs().encode("utf-8"), compresslevel=9, mtime=0)
    return base64.b64encode(packed).decode("ascii")


def _raw(value: Any) -> str:
    """Return a number with all its digits, for `<data value>`."""
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else repr(value)
