"""`prunus.run`: the whole path, in its order."""

import datetime
import shlex
import sys
from pathlib import Path
from typing import Any

import prunus.recipe
from prunus import report
from prunus.budget.controller import Target
from prunus.graph import trace
from prunus.pipeline import stages
from prunus.pipeline.claim import claim
from prunus.pipeline.environment import hardware, versions
from prunus.pipeline.recipe import Recipe
from prunus.pipeline.stages import Run, Watch
from prunus.records import EpochRecord, EvaluationRecord, Recorder, RunRecord, read
from prunus.surgery import save
from prunus.train.fit import Fitted
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
        begun = claim(folder, resolved)
        recorder = Recorder(folder)
        if not begun:
            recorder.truncate(0)
        _run(recipe, recorder, folder, resolved, watch or Watch())
    return folder


def _run(recipe: Recipe, recorder: Recorder, folder: Path, resolved: dict[str, Any], watch: Watch) -> None:
    watch.stage("preparing the data")
    task = recipe.task.bind(recipe.data)
    inputs = recipe.data.train()[0][0][None]
    if not recorder.count():
        recorder.write(_run_record(recipe, resolved, tuple(inputs.shape)))
    with Scalars(folder / "tensorboard") as scalars:

        def shown(record: EpochRecord) -> None:
            scalars.write(record)
            watch.epoch(record)

        seen = Watch(stage=watch.stage, step=watch.step, epoch=shown)
        run = Run(recipe=recipe, folder=folder, recorder=recorder, task=task, inputs=inputs, watch=seen)
        wide, narrow = _train(run)
    recorder.truncate(max(narrow.records, 1))  # what a former attempt wrote after the training is written anew
    stages.evaluate_on_test(run, "narrow", narrow)
    model = narrow.model.cpu()
    stages.tell_widths(run, trace(stages.build_wide(run), inputs), trace(model, inputs))
    stages.check_law(run, model)
    stages.tell_plan(run, narrow.plan)
    save(folder / "narrow", model, narrow.plan)
    networks = {} if wide is None else {"wide": stages.fused(run, wide.model, tell=False)}
    networks["narrow"] = stages.fused(run, model, tell=True)
    stages.deploy(run, networks)
    stages.show_samples(run, networks)
    watch.stage("writing the report")
    report.write(folder)


def _train(run: Run) -> tuple[Fitted | None, Fitted]:
    """Return the wide network, where the recipe wants one to compare with, and the narrow one."""
    recipe = run.recipe
    Target.of(trace(stages.build_wide(run), run.inputs), recipe.shrink.budget)  # refuses before hours of training
    encoder = None if recipe.encoder_stage is None else stages.train_encoder(run, recipe.encoder_stage)
    wide = None
    if recipe.baseline:
        wide = stages.train(run, "wide", encoder, None)
        done = [record for record in read(run.folder) if isinstance(record, EvaluationRecord)]
        if not any(record.model == "wide" for record in done):
            stages.evaluate_on_test(run, "wide", wide)
    return wide, stages.train(run, "narrow", encoder, recipe.shrink)


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
