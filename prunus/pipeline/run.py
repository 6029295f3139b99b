"""`prunus.run`: the whole path, in its order."""

import datetime
import shlex
import sys
from pathlib import Path
from typing import Any

import prunus.recipe
from prunus import report
from prunus.errors import RecipeError, RecordError
from prunus.graph import trace
from prunus.pipeline import stages
from prunus.pipeline.environment import hardware, versions
from prunus.pipeline.recipe import Recipe
from prunus.pipeline.stages import Run, Watch
from prunus.records import EpochRecord, EvaluationRecord, Recorder, RunRecord, read
from prunus.surgery import save
from prunus.train.lock import lock
from prunus.train.scalars import Scalars


def run(recipe: Recipe, *, watch: Watch | None = None) -> Path:
    """Train wide, shrink to the budget, verify, export, measure and report; return the folder of the run.

    A run that was interrupted goes on where it stopped: the same recipe on the same folder. The folder holds
    `recipe.yaml`, `records.jsonl`, `report.html`, `wide.onnx`, `narrow.onnx`, `narrow/` (see `prunus.load`),
    checkpoints and TensorBoard's scalars.

    Raises:
        PrunusError: whatever makes the run impossible; each stage says what and what to do.
    """
    folder = Path(recipe.output or f"runs/{recipe.name}")
    resolved = prunus.recipe.describe(recipe)
    with lock(folder):
        _claim(folder, resolved)
        _run(recipe, folder, resolved, watch or Watch())
    return folder


def _run(recipe: Recipe, folder: Path, resolved: dict[str, Any], watch: Watch) -> None:
    recorder = Recorder(folder)
    watch.stage("preparing the data")
    task = recipe.task.bind(recipe.data)
    inputs = recipe.data.train()[0][0][None]
    done = read(folder) if recorder.count() else []
    if not done:
        recorder.write(_run_record(recipe, resolved, tuple(inputs.shape)))
    with Scalars(folder / "tensorboard") as scalars:

        def shown(record: EpochRecord) -> None:
            scalars.write(record)
            watch.epoch(record)

        seen = Watch(stage=watch.stage, step=watch.step, epoch=shown)
        run = Run(recipe=recipe, folder=folder, recorder=recorder, task=task, inputs=inputs, watch=seen)
        encoder = None if recipe.encoder_stage is None else stages.train_encoder(run, recipe.encoder_stage)
        wide = None
        if recipe.baseline:
            wide = stages.train(run, "wide", encoder, None)
            if not any(isinstance(record, EvaluationRecord) and record.model == "wide" for record in done):
                stages.evaluate_on_test(run, "wide", wide)
        narrow = stages.train(run, "narrow", encoder, recipe.shrink)
    recorder.truncate(max(narrow.records, 1))  # what a former attempt wrote after the training is written anew
    stages.evaluate_on_test(run, "narrow", narrow)
    stages.tell_widths(run, trace(stages.build_wide(run), inputs), trace(narrow.model, inputs))
    stages.check_law(run, narrow.model)
    stages.tell_plan(run, narrow.plan)
    save(folder / "narrow", narrow.model, narrow.plan)
    networks = {} if wide is None else {"wide": stages.fused(run, wide.model, tell=False)}
    networks["narrow"] = stages.fused(run, narrow.model, tell=True)
    stages.deploy(run, networks)
    stages.show_samples(run, networks)
    watch.stage("writing the report")
    report.write(folder)


def _claim(folder: Path, resolved: dict[str, Any]) -> None:
    """Write `recipe.yaml`, or see that the one there is the same: a folder is one run."""
    path, text = folder / "recipe.yaml", prunus.recipe.dump(resolved)
    if path.exists() and path.read_text(encoding="utf-8") != text:
        old = path.read_text(encoding="utf-8").splitlines()
        changed = [line.strip() for line in text.splitlines() if line not in old]
        raise RecipeError(
            f"{folder} holds a run of another recipe (now different: {'; '.join(changed[:5]) or 'a line is gone'}): "
            "choose another folder with output=..., or remove this one"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RecordError(f"{folder} is not writable ({error.strerror}): choose another with output=...") from error


def _run_record(recipe: Recipe, resolved: dict[str, Any], input_shape: tuple[int, ...]) -> RunRecord:
    return RunRecord(
        name=recipe.name,
        command=shlex.join(["prunus", *sys.argv[1:]]),
        seed=recipe.seed,
        recipe=resolved,
        versions=versions(),
        hardware=hardware(),
        started=datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        class_names=tuple(recipe.data.class_names),
        palette=tuple(recipe.data.palette),
        input_shape=input_shape,
    )
