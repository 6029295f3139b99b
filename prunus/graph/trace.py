"""`prunus.trace`: read a network's channel groups from its exported graph."""

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prunus.errors import TraceError
from prunus.graph.call import Factor, Findings
from prunus.graph.cost import CostModel, Term
from prunus.graph.groups import ChannelGroups, Role, Slot
from prunus.graph.walk import Slots, canonical_paths, walk

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


def build(
    model: nn.Module,
    findings: Findings,
    slots: Slots,
    macs: list[tuple[str, tuple[Factor, ...]]],
    notes: tuple[str, ...],
) -> ChannelGroups:
    """Number the classes of ids that are channels, and say what is known of each."""
    roots = findings.ids.classes()
    channel = np.zeros(findings.ids.count, dtype=bool)
    for ids in (*findings.contracted, *(mark.ids for mark in findings.marks)):
        channel[roots[ids.numpy()]] = True
    channel[0] = False
    numbers = np.where(channel, np.cumsum(channel) - 1, -1)
    group_of = torch.from_numpy(numbers[roots])
    count = int(channel.sum())
    found = _slots(model, slots, findings, group_of)
    refused, approximate = torch.zeros(count, dtype=torch.bool), torch.zeros(count, dtype=torch.bool)
    reasons: dict[int, dict[str, None]] = {}
    for mark in findings.marks:
        groups = torch.unique(group_of[mark.ids])
        (refused if mark.refused else approximate)[groups] = True
        for group in groups.tolist():
            reasons.setdefault(group, {})[mark.reason] = None
    _refuse_whole(found, refused, reasons)
    layers, names = _layers(found, count)
    _refuse_unmade(layers, refused, reasons)
    cost = CostModel(_terms(macs, group_of), _params(model, found))
    told = {group: tuple(texts) for group, texts in reasons.items()}
    return ChannelGroups(found, ~refused & ~approximate, refused, layers, names, told, cost, notes)


def _slots(model: nn.Module, slots: Slots, findings: Findings, group_of: Tensor) -> tuple[Slot, ...]:
    roles = torch.zeros(findings.ids.count, dtype=torch.long)
    for number, marked in ((1, findings.consumed), (2, findings.statistics), (0, findings.produced)):
        for ids in marked:
            roles[ids] = number
    order = {path: position for position, path in enumerate(canonical_paths(model).values())}
    kinds = (Role.PRODUCER, Role.CONSUMER, Role.STATISTIC)
    found = []
    for (path, dim), ids in sorted(slots.items(), key=lambda item: (order[item[0][0]], item[0][1])):
        groups = group_of[ids]
        if bool((groups >= 0).any()):
            found.append(Slot(path, dim, kinds[int(roles[ids].max())], groups))
    return tuple(found)


def _refuse_whole(slots: tuple[Slot, ...], refused: Tensor, reasons: dict[int, dict[str, None]]) -> None:
    for slot in slots:
        first = int(slot.groups[0])
        if first >= 0 and bool((slot.groups == first).all()):
            refused[first] = True
            reasons.setdefault(first, {})[f"it is all of {slot.path}, dimension {slot.dim}"] = None


def _layers(slots: tuple[Slot, ...], count: int) -> tuple[Tensor, tuple[str, ...]]:
    layers, names = torch.full((count,), -1), list[str]()
    for slot in slots:
        if slot.role is Role.PRODUCER:
            inside = slot.groups[slot.groups >= 0]
            fresh = inside[layers[inside] < 0]
            if fresh.numel():
                layers[fresh] = len(names)
                names.append(slot.module)
    return layers, tuple(names)


def _refuse_unmade(layers: Tensor, refused: Tensor, reasons: dict[int, dict[str, None]]) -> None:
    for group in (layers < 0).nonzero().flatten().tolist():
        refused[group] = True
        reasons.setdefault(group, {})["no parameter makes it"] = None


def _terms(macs: list[tuple[str, tuple[Factor, ...]]], group_of: Tensor) -> tuple[Term, ...]:
    terms = []
    for module, factors in macs:
        fixed, vectors = 1, []
        for factor in factors:
            if isinstance(factor, int):
                fixed *= factor
            else:
                vectors.append(group_of[factor.ids])
        terms.append(Term(module, fixed, tuple(vectors)))
    return tuple(terms)


def _params(model: nn.Module, slots: tuple[Slot, ...]) -> tuple[Term, ...]:
    by_path: dict[str, dict[int, Tensor]] = {}
    for slot in slots:
        by_path.setdefault(slot.path, {})[slot.dim] = slot.groups
    terms = []
    for path, parameter in model.named_parameters():
        vectors = by_path.get(path, {})
        fixed = int(np.prod([size for dim, size in enumerate(parameter.shape) if dim not in vectors], dtype=np.int64))
        terms.append(Term(path.rpartition(".")[0], fixed, tuple(vectors.values())))
    return tuple(terms)
