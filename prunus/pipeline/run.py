"""`prunus.run`: all steps from a recipe to the report, in order."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import prunus.recipe
from prunus import report
from prunus.deploy.quantization import quantizer
from prunus.deploy.room import check_room
from prunus.errors import RecipeError
from prunus.graph import trace
from prunus.interrupt import check
from prunus.pipeline import deployment, evaluation, stages
from prunus.pipeline.context import RunContext, Watch
from prunus.pipeline.gating import pass_gate
from prunus.pipeline.network import Network
from prunus.pipeline.quantization import quantize_run, require
from prunus.pipeline.recipe import NARROW, WIDE, Recipe
from prunus.pipeline.rehearsal import rehearse
from prunus.pipeline.run_folder import refuse_linked_folders, run_folder
from prunus.pipeline.run_record import record_changes, record_weights, refuse_other_data, run_record_of
from prunus.records import EpochRecord, NoteRecord, Recorder, RunRecord, Silent
from prunus.surgery import save
from prunus.tasks.interface import BoundTask
from prunus.train.distributed import is_first, joined
from prunus.train.lock import lock
from prunus.train.tensorboard import ScalarWriter
from prunus.writing import remove_abandoned


def run(
    recipe: Recipe | str | Path,
    overrides: Sequence[str] = (),
    *,
    watch: Watch | None = None,
    accept_changes: bool = False,
) -> Path:
    """Train wide, reshape and shrink, verify, export, measure and report; return the folder of the run.

    To resume an interrupted run, call it with the same recipe and folder. The folder holds `recipe.yaml`,
    `records.jsonl`, `report.html`, `wide.onnx`, `narrow.onnx`, `wide/` and `narrow/` (see `prunus.load`), checkpoints
    and TensorBoard's scalars; with `shrink.budgets` also a file and a folder for each network of the family. Under
    torchrun, all processes train; process 0 does everything else.

    Args:
        recipe: a recipe, or the path of a YAML file.
        overrides: changes to a file's settings, as on the command line: "train.epochs=3".
        watch: shows the progress.
        accept_changes: resume although the recipe or the data changed; the report notes the changes.

    Raises:
        PrunusError: the run is impossible; the message says why, and what to do.
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
        _run(recipe, Silent(folder), folder, resolved, Watch(), accept_changes=accept_changes)
        return folder
    with lock(folder):
        refuse_linked_folders(folder)
        remove_abandoned(folder)
        recorder = Recorder(folder)
        before = recorder.count()
        with run_folder(
            folder, resolved, accept_changes=accept_changes, going_on=lambda: recorder.count() != before
        ) as begun:
            if not begun:
                recorder.truncate(0)
            _run(recipe, recorder, folder, resolved, watch or Watch(), accept_changes=accept_changes)
    return folder


def _run(
    recipe: Recipe,
    recorder: Recorder,
    folder: Path,
    resolved: dict[str, Any],
    watch: Watch,
    *,
    accept_changes: bool,
) -> None:
    def begins(text: str) -> None:
        check()
        watch.stage(text)

    begins("preparing the data")
    task = recipe.task.bind(recipe.data)
    inputs = recipe.data.train()[0][0][None]
    for split in (recipe.data.validation(), recipe.data.test()):  # report missing files now, not after hours
        if len(split):
            split[0]
    _check_asked(recipe, task)
    _check_targets(recipe, tuple(inputs.shape[1:]))
    run_record = run_record_of(recipe, resolved, tuple(inputs.shape))
    if not accept_changes:
        refuse_other_data(recorder, run_record)
    if not recorder.count():
        recorder.write(run_record)
        record_weights(recorder, recipe)
        for text in recipe.data.notes():
            recorder.write(NoteRecord(text=text))
    train = recipe.train
    with joined(train.torch_device(), train.timeout_s) as processes, ScalarWriter(folder / "tensorboard") as scalars:

        def shown(record: EpochRecord) -> None:
            scalars.write(record)
            watch.epoch(record)

        seen = Watch(stage=begins, step=watch.step, epoch=shown)
        context = RunContext(
            recipe=recipe,
            folder=folder,
            recorder=recorder,
            task=task,
            inputs=inputs,
            watch=seen,
            processes=processes,
        )
        wide, reached, scratch = _train(context)
    if processes.first:
        _deliver(context, wide, reached, scratch, run_record)


def _check_asked(recipe: Recipe, task: BoundTask) -> None:
    """Refuse classes that cannot be protected, and impossible quantisation or decoding, before hours of training."""
    deployment.absent_backends(recipe.benchmark)
    for name in recipe.deploy.quantize.backends if recipe.deploy.quantize is not None else ():
        quantizer(name)
    if recipe.protect is not None:
        recipe.protect.task(task, recipe.data.class_names)
        recipe.protect.data(recipe.data).train()
    if recipe.deploy.decode:
        task.deployed(torch.nn.Identity())


def _check_targets(recipe: Recipe, shape: tuple[int, ...]) -> None:
    """Refuse targets for images of another size than the data's, or with batches that exceed the memory."""
    for target in recipe.benchmark.all_targets:
        if target.sized(shape) != shape:
            raise RecipeError(
                f"the target {target} is for another resolution than that of the data, {shape[-2]}x{shape[-1]}: "
                "give data of the target's resolution, or a target without one"
            )
        check_room([(target.batch, *shape)])


def _deliver(
    context: RunContext,
    wide: Network | None,
    reached: list[Network],
    scratch: list[Network],
    run_record: RunRecord,
) -> None:
    """Evaluate the trained networks on the test split, deploy them, and write the report."""
    recipe, recorder, inputs, folder = context.recipe, context.recorder, context.inputs, context.folder
    networks = [*([] if wide is None else [wide]), *reached, *scratch]
    narrow = reached[-1]
    recorder.truncate(max(1, *(each.records for each in networks)))  # drop records of an earlier attempt after training
    record_changes(recorder, run_record)
    for network in networks:
        evaluation.evaluate_on_test(context, network)
    evaluation.record_family(context)
    model = narrow.model.cpu()
    evaluation.record_widths(context, trace(stages.build_wide(context), inputs), trace(model, inputs))
    evaluation.check_removal_law(context, model)
    for network in networks:
        if network.name.startswith(NARROW) or (network is wide and recipe.baseline is True):
            save(folder / network.name, network.model.cpu(), network.plan)
    if recipe.gate is not None and wide is not None:
        pass_gate(context, recipe.gate, wide.model, model)
    deployed = {network.name: deployment.deployed_form(context, network) for network in networks}
    deployment.deploy(context, deployed)
    quantised = quantize_run(context)
    deployment.write_samples(context, {name: deployed[name] for name in (WIDE, NARROW) if name in deployed})
    context.watch.stage("writing the report")
    report.write(folder)
    for record in quantised:
        require(record)


def _train(context: RunContext) -> tuple[Network | None, list[Network], list[Network]]:
    """Return the wide network, the networks of all stages, and the narrow architecture trained from scratch."""
    recipe = context.recipe
    begun = context.processes.share({path.parent.name for path in context.folder.glob("checkpoints/*/[0-9]*")})
    rehearse(
        recipe.stages, stages.build_start(context, None), context.inputs, context.meter, context.processes, begun
    )  # before hours of training
    encoder = None if recipe.encoder_stage is None else stages.train_encoder(context, recipe.encoder_stage)
    wide = stages.train_wide(context, encoder) if recipe.baseline else None
    reached = stages.run_stages(context, encoder, wide)
    return wide, reached, stages.train_from_scratch(context, reached[-1]) if recipe.from_scratch else []
