"""`prunus.trace`: find a network's channel groups from its program."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from prunus.graph.build import build, numbering
from prunus.graph.compare import same_code
from prunus.graph.findings import Findings, Kind
from prunus.graph.groups import ChannelGroups
from prunus.graph.hard_coded import judge
from prunus.graph.noted_widths import passed_channels
from prunus.graph.off import Off
from prunus.graph.other_width import TracedNetwork
from prunus.graph.walk import LabelledProgram, Slots, walk
from prunus.modules.defaults import whatever_device
from prunus.modules.given import Inputs, arguments, check_readable
from prunus.modules.undisturbed import undisturbed
from prunus.program import Program, ReadError, read


@whatever_device
def trace(
    model: nn.Module, inputs: Inputs, kwargs: Mapping[str, Any] | None = None, *, whole_heads: bool = False
) -> ChannelGroups:
    """Read `model` on example `inputs` and return its channel groups.

    The network is read in evaluation mode, and in training mode too if its code differs there (auxiliary heads); the
    groups hold for both. The code runs on a copy, on the meta device where it can; the model is not changed.

    Args:
        model: any module whose control flow does not depend on values.
        inputs: the example's positional arguments; a tensor stands for a tuple of one.
        kwargs: the example's keyword arguments.
        whole_heads: remove whole heads of attention; by default every head loses the same number of channels. For both,
            cut once each way.

    Raises:
        TraceError: the model cannot be read: it is wrapped or on the meta device, does not run on the inputs, or its
            control flow depends on values.
    """
    check_readable(model)
    with undisturbed(model):  # once for all readings below
        return _traced(model, arguments(inputs), kwargs or {}, whole_heads=whole_heads)


def _traced(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, whole_heads: bool) -> ChannelGroups:
    programs, notes = _programs(model, args, kwargs)
    findings, slots = Findings(), Slots()
    labelled = _walked(programs, model, findings, slots)
    attended = findings.ids_of(Kind.HEAD_SIZE)
    if whole_heads and bool(attended.any()):
        roots = torch.from_numpy(findings.ids.classes())
        findings = findings.afresh(torch.isin(roots, roots[attended]))
        labelled = _walked(programs, model, findings, slots)
    walked = set(findings.marks)
    findings, bindings = judge(TracedNetwork(model, args, kwargs, labelled, slots), findings)
    groups = build(model, findings, slots, labelled[0].macs, notes, bindings, map(passed_channels, labelled))
    excluded, group_of = torch.cat([groups.refused, torch.tensor([True])]), numbering(findings)  # -1 is the last
    for mark in findings.marks:
        if mark.kind is Kind.APPROXIMATE and mark not in walked:
            excluded[group_of[mark.ids]] = True
    for program in programs:
        program.forget()
    off = Off(tuple(programs), findings, slots, group_of, excluded[:-1])
    return dataclasses.replace(groups, off=off)


def _programs(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[list[Program], tuple[str, ...]]:
    """Read the network in evaluation, and in training if its code differs there; return the programs and notes."""
    evaluation = read(model, args, kwargs)
    try:
        training = read(model, args, kwargs, training=True, with_values=evaluation.mode.with_values or None)
    except ReadError as error:
        unused = sorted({path.rpartition(".")[0] for path in evaluation.unread()})
        where = ", ".join(unused) or "the code"
        return [evaluation], (f"not read in training, where {where} behaves differently: {error}",)
    return [evaluation] if same_code(evaluation, training) else [evaluation, training], ()


def _walked(programs: list[Program], model: nn.Module, findings: Findings, slots: Slots) -> tuple[LabelledProgram, ...]:
    return tuple([walk(program, model, findings, slots) for program in programs])
