"""Deployment of the trained networks: exported files, their parity and latency, and sample images."""

import io
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from prunus.deploy import backends, benchmark, check_parity, export_onnx, require
from prunus.errors import DeployError, RecordError
from prunus.interrupt import check
from prunus.modules.modes import in_evaluation
from prunus.pipeline.context import RunContext
from prunus.pipeline.network import Network
from prunus.pipeline.recipe import NARROW, Deploy
from prunus.records import NoteRecord, SampleRecord
from prunus.surgery import apply, fuse
from prunus.verify import apply_measured
from prunus.writing import write_whole


def deployed_form(context: RunContext, network: Network) -> nn.Module:
    """Return the network as deployed, on the CPU with BatchNorm folded; record all edits of the narrow network."""
    model, inputs = in_evaluation(network.model.cpu()), context.inputs.cpu()
    plan = fuse(model, inputs)
    if network.name != NARROW:
        return in_evaluation(apply(plan, model))
    model, edits = apply_measured(model, plan, inputs)
    for record in (*network.edits, *edits):
        context.recorder.write(record)
    return in_evaluation(model)


def absent_backends(settings: Deploy) -> dict[str, str | None]:
    """Return, for each backend of the settings, the reason why it is absent; None where it is present.

    Raises:
        DeployError: all are absent, so that no file could be checked; or one runs no files.
    """
    for name in settings.benchmark.backends:
        if backends.find(name).reads_modules:
            raise DeployError(
                f"deploy.benchmark.backends names {name}, which runs modules, and a run deploys files: leave it "
                f"out; `prunus bench --backends {name}` times the run's folder there"
            )
    reasons = {name: backends.find(name).absence() for name in settings.benchmark.backends}
    if all(reasons.values()):
        raise DeployError(f"no backend can check the exported files: {reasons}; install onnxruntime, or name another")
    return reasons


def deploy(context: RunContext, networks: dict[str, nn.Module]) -> None:
    """Export the networks, check the files' parity on test images, and time them interleaved.

    Raises:
        ParityError: a file and its network differ. The record is written first.
        DeployError: all backends are absent.
    """
    settings, split = context.recipe.deploy, context.recipe.data.test()
    reasons = absent_backends(settings)
    samples = torch.stack([split[i][0] for i in range(min(settings.parity_samples, len(split)))])
    files = {}
    for name, model in networks.items():
        context.watch.stage(f"exporting the {name} network")
        files[name] = export_onnx(model, context.inputs.cpu(), context.folder / f"{name}.onnx")
        for backend in settings.benchmark.backends:
            if reason := reasons[backend]:
                context.recorder.write(NoteRecord(text=f"parity was not checked on {backend}: {reason}"))
                continue
            record = check_parity(
                model, files[name], samples, backend=backend, tolerance=settings.parity_tolerance, name=name
            )
            context.recorder.write(record)
            require(record)
    context.watch.stage("timing the networks")
    for latency in benchmark(
        files,
        tuple(context.inputs.shape[1:]),
        settings.benchmark,
        note=lambda text: context.recorder.write(NoteRecord(text=text)),
    ):
        context.recorder.write(latency)


@torch.no_grad()
def write_samples(context: RunContext, networks: dict[str, nn.Module]) -> None:
    """Write a few test images with their ground truth and predictions as PNG files, drawn by the task."""
    split = context.recipe.data.test()
    num = min(context.recipe.report_samples, len(split))
    for number in range(num):
        check()
        index = (number * len(split) // num + number) % len(
            split
        )  # spread over the split, at different phases of a periodic series
        picture, (image, target) = split.picture(index), split[index]
        size = (picture.shape[1], picture.shape[2])
        files = {"image": picture, "truth": context.task.draw(target, size)}
        for name, model in networks.items():
            files[name] = context.task.draw(context.task.predict(model(image[None]))[0], size)
        paths: dict[str, str] = {}
        for name, pixels in files.items():
            paths[name] = f"images/{index:05d}-{name}.png"
            _save_picture(pixels, context.folder / paths[name])
        context.recorder.write(
            SampleRecord(
                index=index,
                image=paths["image"],
                truth=paths["truth"],
                wide=paths.get("wide"),
                narrow=paths["narrow"],
            )
        )


def _save_picture(pixels: Tensor, path: Path) -> None:
    """Write uint8 [3, H, W] as a PNG file.

    Raises:
        RecordError: there is no room for it, or it may not be written.
    """
    content = io.BytesIO()
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(content, "PNG")
    try:
        path.parent.mkdir(exist_ok=True)
        write_whole(path, content.getvalue())
    except OSError as error:
        text = f"the picture {path} cannot be written ({error.strerror}): make room, then start the same command again"
        raise RecordError(text) from error
