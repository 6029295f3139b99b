"""The stages of a run, one function each; `run` knows their order."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from prunus.budget import check_removal
from prunus.budget.check import difference
from prunus.budget.controller import Controller
from prunus.deploy import backends, benchmark, check_parity, export_onnx, require
from prunus.errors import DeployError, RecipeError, TrainingError
from prunus.graph import ChannelGroups, trace
from prunus.pipeline.recipe import EncoderStage, Recipe
from prunus.records import (
    EditRecord,
    EpochRecord,
    EvaluationRecord,
    NoteRecord,
    Recorder,
    SampleRecord,
    WidthsRecord,
)
from prunus.surgery import Plan, apply, fuse
from prunus.tasks.interface import BoundTask
from prunus.train.evaluate import evaluate
from prunus.train.fit import Fitted, Training, fit
from prunus.train.settings import Train
from prunus.train.shrink import TOLERANCE


@dataclasses.dataclass(frozen=True, kw_only=True)
class Watch:
    """Callbacks that show a run while it goes on; the default shows nothing."""

    stage: Callable[[str], None] = lambda text: None
    epoch: Callable[[EpochRecord], None] = lambda record: None
    step: Callable[[str, int, int, float], None] = lambda name, step, steps, loss: None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """What all stages share."""

    recipe: Recipe
    folder: Path
    recorder: Recorder
    task: BoundTask
    inputs: Tensor  # one training image, [1, 3, H, W]: what is traced, exported and timed
    watch: Watch

    def training(self, name: str, settings: Train, task: BoundTask) -> Training:
        """Return the training `name` under `settings`."""
        return Training(
            name=name,
            data=self.recipe.data,
            task=task,
            settings=settings,
            seed=self.recipe.seed,
            folder=self.folder,
            recorder=self.recorder,
            shown=self.watch.epoch,
            ticked=self.watch.step,
        )


def build_wide(run: Run) -> nn.Module:
    """Build the wide network; the same seed gives the same weights."""
    torch.manual_seed(run.recipe.seed)
    return run.recipe.model(num_classes=len(run.recipe.data.class_names))


def train_encoder(run: Run, stage: EncoderStage) -> dict[str, Tensor]:
    """Train the encoder alone and return its weights."""
    run.watch.stage("training the encoder")
    torch.manual_seed(run.recipe.seed)
    try:
        model = run.recipe.model(num_classes=len(run.recipe.data.class_names), encoder_only=True)  # type: ignore[call-arg]
        encoder = model.get_submodule("encoder")
    except (TypeError, AttributeError) as error:
        raise RecipeError(
            f"encoder_stage: the model cannot be trained in two stages ({error}); it must take encoder_only=True and "
            "hold its encoder as `encoder`, as prunus.models.erfnet.ERFNet does; or set encoder_stage: null"
        ) from error
    fitted = fit(run.training("encoder", stage.train, stage.task.bind(run.recipe.data)), model, run.inputs)
    del encoder
    return dict(fitted.model.get_submodule("encoder").state_dict())


def train(run: Run, name: str, encoder: dict[str, Tensor] | None, controller: Controller | None) -> Fitted:
    """Train the network `name` from the common start: plainly, or shrinking under `controller`."""
    run.watch.stage(f"training the {'wide' if controller is None else 'shrinking'} network")
    model = build_wide(run)
    if encoder is not None:
        model.get_submodule("encoder").load_state_dict(encoder)
    return fit(run.training(name, run.recipe.train, run.task), model, run.inputs, controller)


def evaluate_on_test(run: Run, name: str, fitted: Fitted) -> None:
    """Record the metrics of a trained network over the whole test split."""
    run.watch.stage(f"evaluating the {name} network")
    split = run.recipe.data.test()
    metrics, per_class = evaluate(fitted.model, run.task, split, run.recipe.train)
    groups = trace(fitted.model, run.inputs.to(run.recipe.train.torch_device()))
    run.recorder.write(
        EvaluationRecord(
            model=name,
            split="test",
            images=len(split),
            metrics=metrics,
            per_class=per_class,
            macs=groups.macs(),
            params=groups.params(),
            training_seconds=fitted.seconds,
        )
    )


def tell_widths(run: Run, wide: ChannelGroups, narrow: ChannelGroups) -> None:
    """Record the units of each layer as built and as learned."""
    before, after = wide.widths(), narrow.widths()
    run.recorder.write(
        WidthsRecord(
            layers=tuple(before),
            initial=tuple(before.values()),
            learned=tuple(after.get(name, 0) for name in before),
        )
    )


def check_law(run: Run, model: nn.Module) -> None:
    """Record the law on the trained network: zero half of its groups, cut them, compare.

    Raises:
        TrainingError: the output changed by more than rounding.
    """
    run.watch.stage("checking that zero channels go without a trace")
    record = check_removal(model, run.inputs, seed=run.recipe.seed)
    run.recorder.write(record)
    if not record.max_rel_diff < TOLERANCE:
        raise TrainingError(
            f"removing {record.removed} zero channel groups from the trained network changed its output by "
            f"{record.max_rel_diff:.2e} relative, above {TOLERANCE:.0e}: the groups of this network were read wrongly; "
            "please report it with the model's code"
        )


def fused(run: Run, model: nn.Module, *, tell: bool) -> nn.Module:
    """Return the network as it is deployed, on the CPU, BatchNorm folded; record each edit if `tell`."""
    result = model.cpu().eval()
    for edit in fuse(result, run.inputs.cpu()):
        small = apply(Plan((edit,)), result).eval()
        if tell:
            _, relative = difference(result, small, (run.inputs.cpu(),))
            run.recorder.write(_edit_record(edit, relative))
        result = small
    return result


def tell_plan(run: Run, plan: Plan) -> None:
    """Record the edits that training made; their exactness stands in the shrink records."""
    for edit in plan:
        run.recorder.write(_edit_record(edit, None))


def _edit_record(edit: object, relative: float | None) -> EditRecord:
    from prunus.surgery import Edit

    assert isinstance(edit, Edit)
    return EditRecord(edit=type(edit).__name__, summary=edit.summary(), exact=edit.exact, max_rel_diff=relative)


def deploy(run: Run, networks: dict[str, nn.Module]) -> None:
    """Export the networks, prove the files equal on test images, and time them interleaved.

    Raises:
        ParityError: a file does not equal its network. Its record is written first.
        DeployError: none of the backends is there, so that nothing would be proved.
    """
    settings, split = run.recipe.deploy, run.recipe.data.test()
    reasons = {name: backends.find(name).absence() for name in settings.benchmark.backends}
    if all(reasons.values()):
        raise DeployError(f"no backend can check the exported files: {reasons}; install onnxruntime, or name another")
    samples = torch.stack([split[i][0] for i in range(min(settings.parity_samples, len(split)))])
    files = {}
    for name, model in networks.items():
        run.watch.stage(f"exporting the {name} network")
        files[name] = export_onnx(model, run.inputs.cpu(), run.folder / f"{name}.onnx")
        for backend in settings.benchmark.backends:
            if reason := reasons[backend]:
                run.recorder.write(NoteRecord(text=f"parity was not checked on {backend}: {reason}"))
                continue
            record = check_parity(
                model, files[name], samples, backend=backend, tolerance=settings.parity_tolerance, name=name
            )
            run.recorder.write(record)
            require(record)
    run.watch.stage("timing the networks")
    for latency in benchmark(
        files,
        tuple(run.inputs.shape[1:]),
        settings.benchmark,
        note=lambda text: run.recorder.write(NoteRecord(text=text)),
    ):
        run.recorder.write(latency)


@torch.no_grad()
def show_samples(run: Run, networks: dict[str, nn.Module]) -> None:
    """Write a few test images with truth and predictions as PNG files, as the task draws them."""
    split, folder = run.recipe.data.test(), run.folder / "images"
    folder.mkdir(exist_ok=True)
    num = min(run.recipe.report_samples, len(split))
    for number in range(num):
        index = (number * len(split) // num + number) % len(split)  # not all from one place of a repeating series
        picture, (image, target) = split.picture(index), split[index]
        size = (picture.shape[1], picture.shape[2])
        files = {"image": picture, "truth": run.task.draw(target, size)}
        for name, model in networks.items():
            files[name] = run.task.draw(run.task.predict(model(image[None]))[0], size)
        paths: dict[str, str] = {}
        for name, pixels in files.items():
            paths[name] = f"images/{index:05d}-{name}.png"
            Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(run.folder / paths[name])
        run.recorder.write(
            SampleRecord(
                index=index,
                image=paths["image"],
                truth=paths["truth"],
                wide=paths.get("wide"),
                narrow=paths["narrow"],
            )
        )
