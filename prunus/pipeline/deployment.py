"""What a run hands over: files proved equal to the networks, their latency, and images that show what they see."""

import torch
from PIL import Image
from torch import nn

from prunus.deploy import backends, benchmark, check_parity, export_onnx, require
from prunus.errors import DeployError
from prunus.pipeline.recipe import NARROW, Deploy
from prunus.pipeline.rehearsal import Network, measured
from prunus.pipeline.stages import Run
from prunus.records import NoteRecord, SampleRecord
from prunus.surgery import apply, fuse


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


def backends_absent(settings: Deploy) -> dict[str, str | None]:
    """Return of each backend why it is not there, None if it is.

    Raises:
        DeployError: none is, so that nothing would be proved; or one that runs no files.
    """
    for name in settings.benchmark.backends:
        if backends.find(name).reads_modules:
            raise DeployError(
                f"deploy.benchmark.backends names {name}, which runs modules, and a run hands over files: leave it "
                f"out; `prunus bench --backends {name}` times the run's folder there"
            )
    reasons = {name: backends.find(name).absence() for name in settings.benchmark.backends}
    if all(reasons.values()):
        raise DeployError(f"no backend can check the exported files: {reasons}; install onnxruntime, or name another")
    return reasons


def deploy(run: Run, networks: dict[str, nn.Module]) -> None:
    """Export the networks, prove the files equal on test images, and time them interleaved.

    Raises:
        ParityError: a file does not equal its network. Its record is written first.
        DeployError: none of the backends is there, so that nothing would be proved.
    """
    settings, split = run.recipe.deploy, run.recipe.data.test()
    reasons = backends_absent(settings)
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
