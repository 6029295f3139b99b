"""`prunus.trace`: read a network's channel groups from its exported graph."""

import contextlib
import dataclasses
import gc
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from prunus.errors import TraceError
from prunus.graph.build import build
from prunus.graph.compare import Probe, Reading
from prunus.graph.export import export
from prunus.graph.findings import Findings
from prunus.graph.groups import ChannelGroups
from prunus.graph.numbers import needed
from prunus.graph.probe import judge
from prunus.graph.program import Program, flattened
from prunus.graph.state import Slots
from prunus.graph.training import modes
from prunus.graph.walk import walk

Inputs = Tensor | tuple[Any, ...]
OBJECTS = 100_000  # made between two looks for dead ones


def arguments(inputs: Inputs) -> tuple[Any, ...]:
    """Return example inputs as positional arguments: a tensor stands for a tuple of one.

    Raises:
        TraceError: neither a tensor nor a tuple.
    """
    if not isinstance(inputs, Tensor | tuple | list):
        raise TraceError(f"example inputs are a tensor or a tuple of arguments, not {inputs!r:.80}")
    return (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)


@contextlib.contextmanager
def _rarely_collected() -> Iterator[None]:
    """Let Python look for dead cycles rarely: a trace makes a million objects that live until its end, and to look
    through them again and again takes a tenth of its time."""
    before = gc.get_threshold()
    gc.set_threshold(OBJECTS, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


@_rarely_collected()
def trace(
    model: nn.Module, inputs: Inputs, kwargs: Mapping[str, Any] | None = None, *, whole_heads: bool = False
) -> ChannelGroups:
    """Read `model` on example `inputs` and return its channel groups.

    The graph in evaluation mode is read; where the code does otherwise in training (auxiliary heads), that graph is
    read as well: what is said holds for both. The model is not changed.

    Args:
        model: any module that `torch.export` takes.
        inputs: the example's positional arguments; a tensor stands for a tuple of one.
        kwargs: the example's keyword arguments.
        whole_heads: let attention lose whole heads; by default all heads lose as much of their size. One after
            the other does both.

    Raises:
        TraceError: the model cannot be read: it is wrapped, on the meta device, does not run on the inputs, or
            its control flow depends on values.
    """
    _check(model)
    args = arguments(inputs)
    programs, notes = [flattened(export(model, args, kwargs, training=False))], []
    unused = _unused_modules(programs[0], model)
    both = modes(model, args, kwargs or {}, unused)
    if both.differ:
        try:
            programs.append(flattened(export(model, args, kwargs, training=True)))
        except TraceError as error:
            notes.append(f"not read in training, where {', '.join(unused) or 'the code'} does otherwise: {error}")
    findings, slots = Findings(), Slots()
    readings = _read(programs, model, findings, slots)
    if whole_heads and findings.attended:
        roots = torch.from_numpy(findings.ids.classes())
        findings = findings.afresh(torch.isin(roots, roots[torch.cat(findings.attended)]))
        readings = _read(programs, model, findings, slots)
    macs = readings[0].macs
    if not needed(model, findings, readings):
        return build(model, findings, slots, macs, tuple(notes))
    verdict = judge(Probe(model, args, kwargs or {}, readings, slots, both.on_shapes), findings)
    findings = dataclasses.replace(findings, marks=verdict.marks)
    return build(model, findings, slots, macs, tuple(notes), verdict.bindings)


def _read(programs: list[Program], model: nn.Module, findings: Findings, slots: Slots) -> tuple[Reading, ...]:
    """Walk the graph of evaluation, and that of training where it is the second."""
    readings = []
    for number, program in enumerate(programs):
        start = len(findings.macs)
        labels = walk(program, model, findings, slots)
        readings.append(Reading(program, labels, training=number > 0, macs=findings.macs[start:]))
    return tuple(readings)


def _check(model: nn.Module) -> None:
    wrapper = type(model).__name__
    if not isinstance(model, nn.Module):
        raise TraceError(f"trace takes a torch.nn.Module, not {model!r:.80}: pass the network, built")
    if isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
        raise TraceError(f"the model is wrapped in {wrapper}: trace what is inside, `model.module`")
    if wrapper == "OptimizedModule":
        raise TraceError(
            "the model is compiled (torch.compile): trace the module that was compiled, compile afterwards"
        )
    meta = [name for name, tensor in (*model.named_parameters(), *model.named_buffers()) if tensor.is_meta]
    if meta:
        raise TraceError(
            f"{meta[0]} is on the meta device and has no values: `model.to_empty(device='cpu')` and load it first"
        )


def _unused_modules(program: Program, model: nn.Module) -> list[str]:
    used = {node.name for node in program.graph.nodes if node.op == "placeholder" and node.users}
    specs = program.graph_signature.input_specs
    parameters = dict(model.named_parameters(remove_duplicate=False))
    unused = [str(s.target) for s in specs if s.arg.name not in used and str(s.target) in parameters]
    return sorted({path.rpartition(".")[0] for path in unused})
