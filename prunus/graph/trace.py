"""`prunus.trace`: read a network's channel groups from its exported graph."""

import contextlib
import gc
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from prunus.errors import TraceError
from prunus.graph.build import build
from prunus.graph.compare import same_code
from prunus.graph.findings import Findings, Kind
from prunus.graph.groups import ChannelGroups
from prunus.graph.hard_coded import judge
from prunus.graph.network import Network
from prunus.graph.program import Program
from prunus.graph.read import ReadError, read
from prunus.graph.walk import Reading, Slots, walk
from prunus.modules.undisturbed import undisturbed

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

    The network is read in evaluation mode; where the code does otherwise in training (auxiliary heads), it is read in
    that mode as well: what is said holds for both. Its code runs on a copy, on the meta device where it can: the model
    is not changed.

    Args:
        model: any module whose control flow does not depend on values.
        inputs: the example's positional arguments; a tensor stands for a tuple of one.
        kwargs: the example's keyword arguments.
        whole_heads: let attention lose whole heads; by default all heads lose as much of their size. One after
            the other does both.

    Raises:
        TraceError: the model cannot be read: it is wrapped, on the meta device, does not run on the inputs, or
            its control flow depends on values.
    """
    _check(model)
    with undisturbed(model):  # once for all that is read of it
        return _traced(model, arguments(inputs), kwargs or {}, whole_heads=whole_heads)


def _traced(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, whole_heads: bool) -> ChannelGroups:
    programs, notes = _programs(model, args, kwargs)
    findings, slots = Findings(), Slots()
    readings = _walked(programs, model, findings, slots)
    attended = findings.ids_of(Kind.HEAD_SIZE)
    if whole_heads and bool(attended.any()):
        roots = torch.from_numpy(findings.ids.classes())
        findings = findings.afresh(torch.isin(roots, roots[attended]))
        readings = _walked(programs, model, findings, slots)
    findings.marks, bindings = judge(Network(model, args, kwargs, readings, slots), findings)
    return build(model, findings, slots, readings[0].macs, notes, bindings)


def _programs(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[list[Program], tuple[str, ...]]:
    """Read the network in evaluation, and in training where it does otherwise there; return what a reader should
    know."""
    evaluation = read(model, args, kwargs)
    try:
        training = read(model, args, kwargs, training=True, with_values=evaluation.with_values)
    except ReadError as error:
        unused = sorted({path.rpartition(".")[0] for path in evaluation.unread()})
        where = ", ".join(unused) or "the code"
        return [evaluation], (f"not read in training, where {where} does otherwise: {error}",)
    return [evaluation] if same_code(evaluation, training) else [evaluation, training], ()


def _walked(programs: list[Program], model: nn.Module, findings: Findings, slots: Slots) -> tuple[Reading, ...]:
    return tuple([walk(program, model, findings, slots) for program in programs])


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
