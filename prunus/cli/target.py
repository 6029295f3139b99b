"""`prunus target kit` and `prunus target read`: use a machine with only the runtime as a target."""

import argparse
import dataclasses

import torch

from prunus.backends.target import Target
from prunus.deploy.kit import write_kit
from prunus.deploy.measured_kit import read_kit
from prunus.graph import trace
from prunus.interrupt import check
from prunus.modules.modes import in_evaluation
from prunus.named import Named
from prunus.terminal import Terminal


def kit(options: argparse.Namespace, network: Named) -> None:
    """Write the kit of a network."""
    target = Target.parse(options.target)
    shape = (target.batch, *target.sized(network.input_shape[1:]))
    model, inputs = in_evaluation(network.model), dataclasses.replace(network, input_shape=shape).example()

    def progress(what: str, done: int, whole: int) -> None:
        check()
        Terminal().print(f"{what}: {done} of {whole}")

    torch.manual_seed(0)
    folder = write_kit(options.folder, model, trace(model, inputs), (inputs,), target, progress)
    text = (
        f"{folder}: copy it to the target machine, run `python measure.py` there (it needs {target.backend} and "
        f"numpy), bring measured.json back, then `prunus target read {folder} --output table.json`"
    )
    Terminal().print(text, soft_wrap=True)


def read(options: argparse.Namespace) -> None:
    """Write the table of a measured kit."""
    found = read_kit(options.folder, options.output)
    found.table.save()
    machine = ", ".join(f"{name} {value}" for name, value in found.machine.items())
    Terminal().print(f"{options.output}: {len(found.table)} units of {machine}", soft_wrap=True)
    if found.noisy:
        text = f"{len(found.noisy)} files were measured while the machine was busy, such as {found.noisy[0]}: "
        Terminal().print(f"{text}for reliable results, measure again on an idle machine")
