"""`prunus.run`: the whole path, in its order."""

import datetime
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import prunus.recipe
from prunus import report
from prunus.errors import RecipeError
from prunus.graph import trace
from prunus.pipeline import deployment, evaluation, stages
from prunus.pipeline.environment import hardware, versions
from prunus.pipeline.recipe import NARROW, WIDE, Recipe
from prunus.pipeline.rehearsal import Network, rehearse
from prunus.pipeline.run_folder import claimed, differences
from prunus.pipeline.stages import Run, Watch
from prunus.records import EpochRecord, NoteRecord, Recorder, RunRecord, Silent, read
from prunus.surgery import save
from prunus.train.distributed import is_first, joined
from prunus.train.lock import lock
from prunus.train.tensorboard import Scalars


def run(
    recipe: Recipe | str | Path,
    overrides: Sequence[str] = (),
    *,
    watch: Watch | None = None,
    accept_changes: bool = False,
) -> Path:
    """Train wide, reshape and shrink, verify, export, measure and report; return the folder of the run.

    `recipe` is one, or the path of a YAML file; `overrides` are then those of the command line: "train.epochs=3".

    A run that was interrupted goes on where it stopped: the same recipe on the same folder, or, with
    `accept_changes`, a changed one; what was changed becomes a note of the report. The folder holds `recipe.yaml`,
    `records.jsonl`, `report.html`, `wide.onnx`, `narrow.onnx`, `narrow/` (see `prunus.load`),
    checkpoints and TensorBoard's scalars. Started by torchrun, all processes train; the first does all else.

    Raises:
        PrunusError: whatever makes the run impossible; each stage says what and what to do.
    """
    if isinstance(recipe, str | Path):
        recipe = prunus.recipe.load(Recipe, recipe, overrides)
    elif overrides or not isinstance(recipe, Recipe):
        raise RecipeError(
            f"run takes a recipe, or a file's path and overrides, not {recipe!r:.80} and {overrides!r:.80}"
        )
    folder = Path(recipe.output or f"runs/{recipe.name}")
    resolved = prunus.recipe.describe(recipe)
    if not is_first():
        _run(recipe, Silent(folder), folder, resolved, Watch())
        return folder
    with lock(folder):
        recorder = Recorder(folder)
        before = recorder.count()
        with claimed(
            folder, resolved, accept_changes=accept_changes, going_on=lambda: recorder.count() != before
        ) as begun:
            if not begun:
                recorder.truncate(0)
            _run(recipe, recorder, folder, resolved, watch or Watch())
    return folder


def _run(recipe: Recipe, recorder: Recorder, folder: Path, resolved: dict[str, Any], watch: Watch) -> None:
    watch.stage("preparing the data")
    task = recipe.task.bind(recipe.data)
    inputs = recipe.data.train()[0][0][None]
    for split in (recipe.data.validation(), recipe.data.test()):  # what is missing there is said now, not after hours
        if len(split):
            split[0]
    deployment.backends_absent(recipe.deploy)
    run_record = _run_record(recipe, resolved, tuple(inputs.shape))
    if not recorder.count():
        recorder.write(run_record)
    train = recipe.train
    with joined(train.torch_device(), train.timeout_s) as processes, Scalars(folder / "tensorboard") as scalars:

        def shown(record: EpochRecord) -> None:
            scalars.write(record)
            watch.epoch(record)

        seen = Watch(stage=watch.stage, step=watch.step, epoch=shown)
        run = Run(
            recipe=recipe,
            folder=folder,
            recorder=recorder,
            task=task,
            inputs=inputs,
            watch=seen,
            processes=processes,
        )
        wide, reached, scratch = _train(run)
    if not processes.first:
        return
    networks = [*([] if wide is None else [wide]), *reached, *scratch]
    narrow = reached[-1]
    recorder.truncate(max(1, *(each.records for each in networks)))  # what a former attempt wrote after is written anew
    _tell_changes(recorder, run_record)
    for network in networks:
        evaluation.evaluate_on_test(run, network)
    model = narrow.model.cpu()
    evaluation.tell_widths(run, trace(stages.build_wide(run), inputs), trace(model, inputs))
    evaluation.check_law(run, model)
    save(folder / "narrow", model, narrow.plan)
    deployed = {network.name: deployment.fused(run, network) for network in networks}
    deployment.deploy(run, deployed)
    deployment.show_samples(run, {name: deployed[name] for name in (WIDE, NARROW) if name in deployed})
    watch.stage("writing the report")
    report.write(folder)


def _train(run: Run) -> tuple[Network | None, list[Network], list[Network]]:
    """Return the wide network, those that the stages led to, and the narrow architecture trained from scratch."""
    recipe = run.recipe
    begun = run.processes.share({path.parent.name for path in run.folder.glob("checkpoints/*/[0-9]*")})
    rehearse(recipe.stages, stages.build_wide(run), run.inputs, run.meter, run.processes, begun)  # before hours
    encoder = None if recipe.encoder_stage is None else stages.train_encoder(run, recipe.encoder_stage)
    wide = stages.train_wide(run, encoder) if recipe.baseline else None
    reached = stages.walk(run, encoder, wide)
    return wide, reached, stages.train_from_scratch(run, reached[-1]) if recipe.from_scratch else []


def _tell_changes(recorder: Recorder, now: RunRecord) -> None:
    """Record what the recipe says now, and what it said when the run began, where the two differ."""
    begun = next(record for record in read(recorder.path.parent) if isinstance(record, RunRecord))
    if different := differences(begun.recipe, now.recipe):
        recorder.write(now)
        recorder.write(NoteRecord(text=f"The recipe was changed while the run was under way: {'; '.join(different)}."))


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
