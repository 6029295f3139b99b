"""Deployment of the trained networks: exported files, their parity and latency, and sample images."""

import torch
from torch import nn

from prunus import backends
from prunus.deploy import BenchmarkSettings, benchmark, check_parity, export_onnx, require
from prunus.deploy.forms import choose_forms, has_forms
from prunus.errors import DeployError
from prunus.interrupt import check
from prunus.modules.modes import in_evaluation
from prunus.pipeline.context import RunContext
from prunus.pipeline.network import Network
from prunus.pipeline.pictures import write_pictures
from prunus.pipeline.recipe import NARROW
from prunus.records import FormRecord, NoteRecord
from prunus.surgery import apply, fuse
from prunus.verify import apply_measured


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


def absent_backends(settings: BenchmarkSettings) -> dict[str, str | None]:
    """Return, for each backend of the settings' targets, the reason why it is absent; None if it is available.

    Raises:
        DeployError: all are absent, so no file can be checked; or one does not run files.
    """
    names = list(dict.fromkeys(target.backend for target in settings.all_targets))
    for name in names:
        if backends.find(name).reads_modules:
            raise DeployError(
                f"target or deploy.benchmark.backends names {name}, which runs modules, and a run deploys files: leave "
                f"it out; `prunus bench --backends {name}` times the run's folder there"
            )
    reasons = {name: backends.find(name).absence() for name in names}
    if all(reasons.values()):
        raise DeployError(f"no backend can check the exported files: {reasons}; install onnxruntime, or name another")
    return reasons


def fastest_form(context: RunContext, name: str, network: nn.Module) -> nn.Module:
    """Return the narrow network, or one of its family, with each layer in its fastest form, and record the choices.
    Return other networks unchanged.
    Raises:
        EditError: a form does not compute the same.
    """
    if not context.recipe.deploy.choose_forms or not name.startswith(NARROW) or not has_forms(network):
        return network
    context.watch.stage(f"timing the forms of the layers of the {name} network")
    shrink = context.recipe.stages[-1].shrink
    budget = None if shrink is None else shrink.budget
    if context.target(budget).remote:
        context.recorder.write(
            NoteRecord(text=f"{name} is deployed in its trained form: a remote target cannot time the layers' forms.")
        )
        return network
    model, choices = choose_forms(network, context.inputs.cpu(), context.meter(network, budget))
    for choice in choices:
        context.recorder.write(FormRecord(model=name, target=str(context.target(budget)), **vars(choice)))
    return in_evaluation(model)


def deploy(context: RunContext, networks: dict[str, nn.Module]) -> None:
    """Export the networks, check the files' parity on test images, and time them in turn.

    Raises:
        ParityError: a file and its network differ. The record is written first.
        DeployError: all backends are absent.
    """
    settings, split = context.recipe.deploy, context.recipe.data.test()
    reasons = absent_backends(context.recipe.benchmark)
    samples = torch.stack([split[i][0] for i in range(min(settings.parity_samples, len(split)))])
    files = {}
    for name, trained in networks.items():
        network = fastest_form(context, name, trained)
        context.watch.stage(f"exporting the {name} network")
        model = context.task.deployed(network).eval() if settings.decode else network
        files[name] = export_onnx(model, context.inputs.cpu(), context.folder / f"{name}.onnx")
        for backend, reason in reasons.items():
            if reason:
                context.recorder.write(NoteRecord(text=f"parity was not checked on {backend}: {reason}"))
                continue
            record = check_parity(
                model,
                files[name],
                samples,
                backend=backend,
                tolerance=settings.parity_tolerance,
                name=name,
                decisions=context.task,
            )
            context.recorder.write(record)
            require(record)
    context.watch.stage("timing the networks")
    for latency in benchmark(
        files,
        tuple(context.inputs.shape[1:]),
        context.recipe.benchmark,
        note=lambda text: context.recorder.write(NoteRecord(text=text)),
    ):
        context.recorder.write(latency)


def write_samples(context: RunContext, networks: dict[str, nn.Module]) -> None:
    """Write a few test images with their ground truth and predictions as PNG files, drawn by the task."""
    length = len(context.recipe.data.test())
    num = min(context.recipe.report_samples, length)
    for number in range(num):
        check()
        # Spread over the split; `+ number` avoids hitting the same phase of a periodic series.
        write_pictures(context, (number * length // num + number) % length, dict(networks))
