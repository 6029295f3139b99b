"""Walks an exported graph from inputs to outputs, one rule an operator."""

import operator
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from prunus.graph.call import Call, Findings, Kind, Mark
from prunus.graph.labels import Axis, Label
from prunus.graph.narrow import Settled
from prunus.graph.rules import find

Slots = dict[tuple[str, int], torch.Tensor]  # (path, dimension) of a parameter or buffer -> ids


def walk(program: ExportedProgram, model: nn.Module, findings: Findings, slots: Slots) -> dict[str, Any]:
    """Label every tensor of `program`, by node name.

    What the rules find is added to `findings`, parameters' ids to `slots`.
    """
    labels = _placeholders(program, model, findings, slots)
    dtypes: dict[int, torch.dtype] = {}
    kinds = {path: _kind(module) for path, module in model.named_modules(remove_duplicate=False)}
    for number, node in enumerate(program.graph.nodes, start=max(findings.reasons, default=0) + 1):
        if node.op == "call_function":
            findings.reasons[number] = where(node)
            labels[node.name] = _called(node, number, labels, dtypes, kinds, findings)
        elif node.op == "get_attr":
            labels[node.name] = _attribute(program, node)
        elif node.op == "output":
            _refuse_outputs(node.args[0], labels, findings)
        for label, value in zip(flat(labels.get(node.name)), flat(node.meta.get("val")), strict=False):
            if isinstance(label, Label) and isinstance(value, torch.Tensor):
                dtypes[id(label)] = value.dtype
    return labels


def _kind(module: nn.Module) -> tuple[bool, bool]:
    """Return whether a module's size attributes follow its tensors, and whether they are out of reach."""
    settled = isinstance(module, Settled)
    return settled, not settled and type(module).__module__.startswith("torch.nn.modules")


def _placeholders(program: ExportedProgram, model: nn.Module, findings: Findings, slots: Slots) -> dict[str, Any]:
    values = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    canonical = canonical_paths(model)
    labels: dict[str, Any] = {}
    for spec in program.graph_signature.input_specs:
        name, value = spec.arg.name, values.get(spec.arg.name)
        if not isinstance(value, torch.Tensor):
            labels[name] = value
        elif spec.kind in (InputKind.PARAMETER, InputKind.BUFFER):
            labels[name] = _state(canonical[str(spec.target)], model, findings, slots)
        elif spec.kind == InputKind.CONSTANT_TENSOR:
            labels[name] = Label(tuple(value.shape), data=program.constants[str(spec.target)])
        else:
            labels[name] = Label(tuple(value.shape))
    return labels


def canonical_paths(model: nn.Module) -> dict[str, str]:
    """Return, for each path of a parameter or buffer, the first path of the same tensor (tied weights have several)."""
    first: dict[int, str] = {}
    tensors = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    return {path: first.setdefault(id(tensor), path) for path, tensor in tensors}


def _state(path: str, model: nn.Module, findings: Findings, slots: Slots) -> Label:
    module, _, name = path.rpartition(".")
    tensor = getattr(model.get_submodule(module), name)
    if not tensor.is_floating_point():
        return Label(tuple(tensor.shape), data=tensor.detach().cpu())
    axes = {}
    for dim, size in enumerate(tensor.shape):
        if size > 1:
            if (path, dim) not in slots:
                slots[path, dim] = findings.ids.new(size)
            axes[dim] = Axis.of(slots[path, dim])
    return Label(tuple(tensor.shape), axes)


def _attribute(program: ExportedProgram, node: torch.fx.Node) -> Any:
    value = program.graph_module
    for part in str(node.target).split("."):
        value = getattr(value, part)
    return Label(tuple(value.shape), data=value) if isinstance(value, torch.Tensor) else value


def _called(
    node: torch.fx.Node,
    number: int,
    labels: dict[str, Any],
    dtypes: dict[int, torch.dtype],
    kinds: dict[str, tuple[bool, bool]],
    findings: Findings,
) -> Any:
    def resolve(value: Any) -> Any:
        return torch.fx.node.map_arg(value, lambda argument: labels[argument.name])

    args, kwargs = resolve(node.args), resolve(node.kwargs)
    if node.target is operator.getitem:
        return args[0][args[1]]
    value = node.meta.get("val")
    shapes = tuple(tuple(int(size) for size in v.shape) for v in flat(value) if isinstance(v, torch.Tensor))
    name = operator_name(node.target)
    module = module_path(node)
    settled, rigid = kinds.get(module, (False, False))
    call = Call(name, node.target, args, kwargs, shapes, dtypes, number, module, line(node), settled, rigid, findings)
    result = find(name, node.target)(call)
    if str(node.target).split(".")[1].endswith("_") and isinstance(result, Label):
        labels[node.args[0].name] = result
    return result


def operator_name(target: Any) -> str:
    """Return "namespace::operator" of an operator, the in-place underscore taken off."""
    parts = str(target).split(".")
    if len(parts) < 2:
        return f"python::{getattr(target, '__name__', target)}"
    return f"{parts[0]}::{parts[1].rstrip('_') or parts[1]}"


def module_path(node: torch.fx.Node) -> str:
    """Return the dotted path of the module whose code called the operator."""
    stack = node.meta.get("nn_module_stack") or {}
    return str(next(reversed(stack.values()))[0]) if stack else ""


def where(node: torch.fx.Node) -> str:
    """Return "operator in module, file:line" for messages."""
    path, place = module_path(node), line(node).rpartition("/")[2]
    return f"{operator_name(node.target)}{f' in {path}' if path else ''}{f', {place}' if place else ''}"


def line(node: torch.fx.Node) -> str:
    """Return "file:line" of the innermost code that is not torch's own, where there is any."""
    lines = [text for text in (node.meta.get("stack_trace") or "").splitlines() if text.strip().startswith("File")]
    lines = [text for text in lines if "/torch/" not in text]
    if not lines:
        return ""
    file, number = lines[-1].strip().split(", ")[:2]
    return f"{file[6:-1]}:{number.removeprefix('line ')}"


def _refuse_outputs(values: Any, labels: dict[str, Any], findings: Findings) -> None:
    for number, value in enumerate(flat(values)):
        for label in flat(labels.get(value.name) if isinstance(value, torch.fx.Node) else None):
            if isinstance(label, Label):
                for axis in label.axes.values():
                    findings.marks.append(
                        Mark(axis.ids[axis.ids != 0], f"reaches the network's output {number}", Kind.REFUSED)
                    )


def flat(value: Any) -> Iterable[Any]:
    """Yield the items of nested lists."""
    if isinstance(value, list | tuple):
        for item in value:
            yield from flat(item)
    else:
        yield value
