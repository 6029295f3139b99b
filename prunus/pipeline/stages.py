"""What a run is made of, one function each; `run` knows their order."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from PIL import Image
from torch import Tensor, nn

from prunus.budget import check_removal
from prunus.deploy import backends, benchmark, check_parity, export_onnx, require
from prunus.errors import DeployError, RecipeError, TrainingError
from prunus.graph import ChannelGroups, trace
from prunus.penalties import Penalty
from prunus.pipeline.recipe import NARROW, SCRATCH, WIDE, EncoderStage, Recipe, Stage
from prunus.pipeline.scratch import fresh
from prunus.pipeline.walk import Network, measured, network_name, record_of, reshaped, training_name
from prunus.records import (
    EpochRecord,
    EvaluationRecord,
    NoteRecord,
    Recorder,
    SampleRecord,
    WidthsRecord,
)
from prunus.surgery import Plan, apply, bypass, fuse
from prunus.tasks.interface import BoundTask
from prunus.train.distributed import ALONE, Processes
from prunus.train.evaluate import evaluate
from prunus.train.fit import Training, fit
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
    processes: Processes = ALONE

    def training(self, name: str, settings: Train, task: BoundTask, penalty: Penalty | None = None) -> Training:
        """Return the training `name` under `settings`."""
        return Training(
            name=name,
            data=self.recipe.data,
            task=task,
            settings=settings,
            penalty=penalty,
            seed=self.recipe.seed,
            folder=self.folder,
            recorder=self.recorder,
            processes=self.processes,
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


def build_start(run: Run, encoder: dict[str, Tensor] | None) -> nn.Module:
    """Build the network that every training but the encoder's begins with."""
    model = build_wide(run)
    if encoder is not None:
        model.get_submodule("encoder").load_state_dict(encoder)
    return model


def train_wide(run: Run, encoder: dict[str, Tensor] | None) -> Network:
    """Train the network as built, plainly."""
    run.watch.stage("training the wide network")
    fitted = fit(run.training(WIDE, run.recipe.train, run.task), build_start(run, encoder), run.inputs)
    return Network(name=WIDE, model=fitted.model, seconds=fitted.seconds, records=fitted.records)


def walk(run: Run, encoder: dict[str, Tensor] | None, wide: Network | None) -> list[Network]:
    """Go through all stages and return the network that each leads to; the last is the narrow one."""
    reached, network = list[Network](), Network(name="", model=build_start(run, encoder))
    for stage in run.recipe.stages:
        network = dataclasses.replace(network, name=network_name(run.recipe.stages, stage))
        if stage.edits:
            run.watch.stage(f"{stage.name}: editing the network")
        network = reshaped(network, stage, run.inputs)
        if stage.train is not None:
            network = trained(run, stage, stage.train, network, wide)
        reached.append(network)
    return reached


def trained(run: Run, stage: Stage, settings: Train, network: Network, wide: Network | None) -> Network:
    """Train `network`, which the stages before have led to, as `stage` says."""
    run.watch.stage(f"training the {'shrinking' if stage.shrink else 'reshaped'} network ({stage.name})")
    task = run.task
    if stage.distillation is not None:
        assert wide is not None  # the recipe refuses else
        task = stage.distillation.wrap(task, wide.model)
    training = run.training(training_name(stage), settings, task, stage.penalty)
    model = apply(Plan(), network.model)  # the network before the training is shown too
    fitted = fit(training, model, run.inputs, stage.shrink)
    vanished = bypass(fitted.model, run.inputs.to(settings.torch_device()))  # layers that training has emptied
    model, edits = measured(fitted.model, vanished, run.inputs)
    return dataclasses.replace(
        network,
        model=model,
        plan=network.plan + fitted.plan + vanished,
        edits=(*network.edits, *map(record_of, fitted.plan), *edits),
        seconds=network.seconds + fitted.seconds,
        records=fitted.records,
    )


def train_from_scratch(run: Run, narrow: Network) -> list[Network]:
    """Train the narrow architecture anew, as long as all stages together, with SGD and with Adam."""
    own, result = run.recipe.train, list[Network]()
    epochs = sum(stage.train.epochs for stage in run.recipe.stages if stage.train is not None)
    rates = run.recipe.from_scratch_rates
    kinds: dict[Literal["sgd", "adam", "adamw"], float] = {"sgd": rates.sgd, "adam": rates.adam}
    for kind, rate in (kinds | {own.optimizer.name: own.optimizer.learning_rate}).items():
        optimizer, name = dataclasses.replace(own.optimizer, name=kind, learning_rate=rate), f"{SCRATCH}-{kind}"
        run.watch.stage(f"training the narrow architecture from scratch ({kind})")
        settings = dataclasses.replace(own, epochs=epochs, optimizer=optimizer)
        model = fresh(narrow.model.cpu(), build_wide(run), run.recipe.seed)
        fitted = fit(run.training(name, settings, run.task), model, run.inputs)
        result.append(Network(name=name, model=fitted.model, seconds=fitted.seconds, records=fitted.records))
    return result


def evaluate_on_test(run: Run, network: Network) -> None:
    """Record the metrics of a network over the whole test split."""
    run.watch.stage(f"evaluating the {network.name} network")
    split, device = run.recipe.data.test(), run.recipe.train.torch_device()
    metrics, per_class = evaluate(network.model.to(device), run.task, split, run.recipe.train)
    groups = trace(network.model, run.inputs.to(device))
    run.recorder.write(
        EvaluationRecord(
            model=network.name,
            split="test",
            images=len(split),
            metrics=metrics,
            per_class=per_class,
            macs=groups.macs(),
            params=groups.params(),
            training_seconds=network.seconds,
        )
    )


def tell_widths(run: Run, wide: ChannelGroups, narrow: ChannelGroups) -> None:
    """Record the units of each layer as built and as learned."""
    before, after = wide.widths(), narrow.widths()
    run.recorder.write(
        WidthsRecord(
            layers=tuple(before),
            initial=tuple(before.values()),
            learned=tuple(_units(after, name) for name in before),
        )
    )


def _units(widths: dict[str, int], name: str) -> int:
    """Return a layer's units, or those of the last of the layers that took its place; 0 where none did."""
    return widths.get(name, next((widths[path] for path in reversed(widths) if path.startswith(f"{name}.")), 0))


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


def fused(run: Run, network: Network) -> nn.Module:
    """Return the network as it is deployed, on the CPU, BatchNorm folded; record all edits of the narrow one."""
    model, inputs = network.model.cpu().eval(), run.inputs.cpu()
    plan = fuse(model, inputs)
    if network.name != NARROW:
        return apply(plan, model).eval()
    model, edits = measured(model, plan, inputs)
    for record in (*network.edits, *edits):
        run.recorder.write(record)
    return model.eval()


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
