"""`prunus.trace`: read a network's channel groups from its exported graph."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from prunus.errors import TraceError
from prunus.graph.build import build
from prunus.graph.call import Findings
from prunus.graph.compare import Reading
from prunus.graph.export import export
from prunus.graph.groups import ChannelGroups
from prunus.graph.probe import Probe, judge, needed
from prunus.graph.state import Slots
from prunus.graph.walk import walk

Inputs = Tensor | tuple[Any, ...]


def trace(model: nn.Module, inputs: Inputs, kwargs: Mapping[str, Any] | None = None) -> ChannelGroups:
    """Read `model` on example `inputs` and return its channel groups.

    The graph in evaluation mode is read; where it leaves parameters unused (auxiliary heads), the graph in
    training mode is read as well and both must agree. The model is not changed.

    Args:
        model: any module that `torch.export` takes.
        inputs: the example's positional arguments; a tensor stands for a tuple of one.
        kwargs: the example's keyword arguments.

    Raises:
        TraceError: the model cannot be read: it is wrapped, on the meta device, does not run on the inputs, or
            its control flow depends on values.
    """
    _check(model)
    args = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    findings, slots, notes = Findings(), Slots(), []
    program = export(model, args, kwargs, training=False)
    readings = [Reading(program, walk(program, model, findings, slots), training=False)]
    macs = list(findings.macs)
    if unused := _unused_modules(program, model):
        try:
            program = export(model, args, kwargs, training=True)
            readings.append(Reading(program, walk(program, model, findings, slots), training=True))
        except TraceError as error:
            notes.append(f"{', '.join(unused)}: not reached in evaluation, and not read in training: {error}")
    if not needed(findings, readings):
        return build(model, findings, slots, macs, tuple(notes))
    verdict = judge(Probe(model, args, kwargs or {}, tuple(readings), slots), findings)
    findings = dataclasses.replace(findings, marks=verdict.marks)
    return build(model, findings, slots, macs, tuple(notes), verdict.bindings)


def _check(model: nn.Module) -> None:
    wrapper = type(model).__name__
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


def _unused_modules(program: Any, model: nn.Module) -> list[str]:
    used = {node.name for node in program.graph.nodes if node.op == "placeholder" and node.users}
    specs = program.graph_signature.input_specs
    parameters = dict(model.named_parameters(remove_duplicate=False))
    unused = [str(s.target) for s in specs if s.arg.name not in used and str(s.target) in parameters]
    return sorted({path.rpartition(".")[0] for path in unused})
