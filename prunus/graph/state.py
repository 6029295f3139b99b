"""Labels for what goes into a network's graph: parameters, buffers, constants, inputs."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.export.graph_signature import InputKind

from prunus.graph.findings import Findings, Kind, Mark
from prunus.graph.labels import Axis, Label
from prunus.graph.program import Program
from prunus.modules.ties import canonical_paths

HOOKED = (
    "a hook keeps a weight that it makes of it (torch.nn.utils.weight_norm, .spectral_norm, .prune), which a cut "
    "cannot follow; torch.nn.utils.parametrizations are followed"
)
Slots = dict[tuple[str, int], Tensor]  # (path, dimension) of a parameter or buffer -> ids


def placeholders(program: Program, model: nn.Module, findings: Findings, slots: Slots) -> dict[str, Any]:
    """Return the label of each placeholder by its name; new ids go into `slots`."""
    values = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    canonical = canonical_paths(model)
    labels: dict[str, Any] = {}
    for spec in program.graph_signature.input_specs:
        name, value = spec.arg.name, values.get(spec.arg.name)
        if not isinstance(value, Tensor):
            labels[name] = value
        elif spec.kind in (InputKind.PARAMETER, InputKind.BUFFER):
            labels[name] = _label(canonical[str(spec.target)], model, findings, slots)
        elif spec.kind == InputKind.CONSTANT_TENSOR:
            labels[name] = Label.constant(program.constants[str(spec.target)])
        else:
            labels[name] = Label(tuple(value.shape))
    return labels


def _is_of_a_hook(module: nn.Module, name: str) -> bool:
    """Whether a hook makes another tensor of the parameter before each run, and keeps it in the module."""
    made, _, kind = name.rpartition("_")
    return kind in ("g", "v", "orig") and isinstance(vars(module).get(made), Tensor)


def _label(path: str, model: nn.Module, findings: Findings, slots: Slots) -> Label:
    """Every dimension of a floating-point tensor holds channels; a buffer, which nobody trains, is not zero."""
    module, _, name = path.rpartition(".")
    tensor = getattr(model.get_submodule(module), name)
    if not tensor.is_floating_point():
        return Label.constant(tensor.detach().cpu())
    source = 0 if isinstance(tensor, nn.Parameter) else findings.number_of(f"the buffer {path}")
    axes = {}
    for dim, size in enumerate(tensor.shape):
        if size > 1:
            if (path, dim) not in slots:
                slots[path, dim] = findings.ids.new(size)
            ids = slots[path, dim]
            axes[dim] = Axis(ids, torch.full_like(ids, source))
            if _is_of_a_hook(model.get_submodule(module), name):
                findings.marks.append(Mark(ids, f"{path}: {HOOKED}", Kind.REFUSED))
    return Label(tuple(tensor.shape), axes)
