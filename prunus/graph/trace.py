"""`prunus.trace`: read a network's channel groups from its exported graph."""

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from prunus.errors import TraceError
from prunus.graph.build import build
from prunus.graph.call import Findings
from prunus.graph.groups import ChannelGroups
from prunus.graph.walk import Slots, walk

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
    walk(program, model, findings, slots)
    macs = list(findings.macs)
    if unused := _unused_modules(program, model):
        try:
            walk(export(model, args, kwargs, training=True), model, findings, slots)
        except TraceError as error:
            notes.append(f"{', '.join(unused)}: not reached in evaluation, and not read in training: {error}")
    return build(model, findings, slots, macs, tuple(notes))


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


def export(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None, *, training: bool) -> Any:
    """Export `model` in evaluation or training mode; its modes are put back."""
    with modes_kept(model), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.train(training)
        try:
            return torch.export.export(model, args, dict(kwargs or {}))
        except Exception as error:  # torch.export raises whatever the model's own code raises
            raise TraceError(_explained(model, args, error)) from error


@contextlib.contextmanager
def modes_kept(model: nn.Module) -> Iterator[None]:
    """Put every module's train/eval mode back at the end."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _explained(model: nn.Module, args: tuple[Any, ...], error: Exception) -> str:
    name, text = type(model).__name__, str(error).strip()
    fed = ", ".join(f"{tuple(a.shape)} {a.dtype}" if isinstance(a, Tensor) else type(a).__name__ for a in args)
    first = text.splitlines()[0] if text else type(error).__name__
    if "data-dependent" in text or "DataDependent" in type(error).__name__ or "GuardOnDataDependent" in text:
        places = [line.strip() for line in text.splitlines() if line.strip().startswith("File")]
        place = f" at {places[-1]}" if places else ""
        return (
            f"{name} decides by the values of a tensor{place}, so it has no single graph: {first}. "
            "Trace the submodule that has none of this (the backbone, the head), and edit it in place"
        )
    return f"{name} cannot be exported on inputs ({fed}): {type(error).__name__}: {first}"


def _unused_modules(program: Any, model: nn.Module) -> list[str]:
    used = {node.name for node in program.graph.nodes if node.op == "placeholder" and node.users}
    specs = program.graph_signature.input_specs
    parameters = dict(model.named_parameters(remove_duplicate=False))
    unused = [str(s.target) for s in specs if s.arg.name not in used and str(s.target) in parameters]
    return sorted({path.rpartition(".")[0] for path in unused})
