"""Label every tensor of a program, with one rule per operator."""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn

from prunus.graph.call import Call
from prunus.graph.cost import Term
from prunus.graph.findings import Findings, Kind, Mark
from prunus.graph.ids import NONE
from prunus.graph.labels import Axis, Label
from prunus.graph.rules import find
from prunus.graph.written_views import is_plain_view, sharing, viewed, written
from prunus.modules.kinds import SizedLayer
from prunus.modules.tree import flat, replaced
from prunus.program import Operation, Origin, Program, Value

EMPTY = MappingProxyType[tuple[str, int], Tensor]({})
Slots = dict[tuple[str, int], Tensor]  # (path, dimension) of a parameter or buffer -> ids
HOOKED = (
    "a hook keeps a weight that it computes from it (torch.nn.utils.weight_norm, .spectral_norm), which a cut cannot "
    "follow; torch.nn.utils.parametrizations are followed"
)


@dataclasses.dataclass(frozen=True, eq=False)
class LabelledProgram:
    """A network's operations in one mode, with the labels of their tensors and their multiply-adds."""

    program: Program
    labels: dict[Value, Label]
    macs: list[Term]  # with ids as factors, as in `Findings`


def walk(
    program: Program, model: nn.Module, findings: Findings, slots: Slots, zero: Mapping[tuple[str, int], Tensor] = EMPTY
) -> LabelledProgram:
    """Label every tensor of `program`.

    The rules add to `findings`; the ids of parameters and buffers are added to `slots`. `zero` holds whether each index
    of a parameter's or buffer's dimension is zero, bool [size]; by default parameters count as zero and buffers do not.
    """
    first = len(findings.macs)
    walker = _Walker(model, findings)
    for value in program.given:
        walker.labels[value] = _given(value, model, findings, slots, zero)
    for path, module in model.named_modules():
        if isinstance(module, nn.MultiheadAttention):
            _as_wide_as_its_input(path, findings, slots)
    for operation in program.operations:
        walker.call(operation)
    for number, value in enumerate(program.outputs):
        for axis in walker.labels[value].axes.values():
            ids = axis.ids[axis.ids != NONE]
            findings.marks.append(Mark(ids, Kind.REFUSED, f"reaches the network's output {number}"))
    return LabelledProgram(program, walker.labels, findings.macs[first:])


class _Walker:
    """The state of one walk."""

    def __init__(self, model: nn.Module, findings: Findings) -> None:
        self.findings = findings
        self.labels: dict[Value, Label] = {}
        self.kinds = dict(model.named_modules(remove_duplicate=False))

    def call(self, operation: Operation) -> None:
        """Label the results of an operation, and the tensors that share memory with those it writes into."""
        call = self._label(operation)
        for target in flat([operation.arguments[name] for name in operation.operator.writes]):
            if isinstance(target, Value):
                self._written(call, target, [self.labels[value] for value in operation.results])

    def _label(self, operation: Operation) -> Call:
        """Label the results of an operation."""
        module = self.kinds.get(operation.module)
        follows = isinstance(module, SizedLayer)
        rigid = not follows and type(module).__module__.startswith("torch.nn.modules")
        number = self.findings.number_of(operation.where)
        arguments = {k: replaced(v, Value, self.labels.__getitem__) for k, v in operation.arguments.items()}
        call = Call(operation, arguments, number, follows, rigid, self.findings)
        if rigid and module is not None and next(module.parameters(recurse=False), None) is not None:
            call.freeze_all(f"torch's {type(module).__name__} keeps its sizes")
        known = operation.results and all(label.data is not None for label in call.labels)
        constants = [value.constant for value in operation.results if value.constant is not None]
        if known and len(constants) == len(operation.results):
            labels = [Label.constant(constant) for constant in constants]
        elif known and operation.operands and operation.operator.is_view and is_plain_view(operation):
            labels = [Label.constant(seen) for seen in call.run(lambda label: label.data)]  # of a large constant
        else:
            found = find(call.name, operation.operator)(call)
            labels = found if isinstance(found, list) else [found]
        for value, label in zip(operation.results, labels, strict=True):
            self.labels[value] = dataclasses.replace(label, dtype=value.dtype)
        return call

    def _written(self, call: Call, target: Value, results: list[Label]) -> None:
        """Update the labels after an operator wrote into `target`, which may be a view of a tensor.

        A view's label is derived from the label of its base, so a change of the base changes its views. Views made
        before the write and read after it are labelled again; where that is impossible, all their channels are refused.
        """
        now, (base, *views) = call.operation.number, viewed(target)
        into, part = self.labels[base], results[0] if len(results) == 1 else self.labels[target]
        alike = len(results) == 1 and part.shape == target.shape
        label = None if not alike else written(call, into, [base, *views], part) if views else part
        if label is None and not any(each.axes for each in (into, *results, *call.labels)):
            label = Label(into.shape)  # without channels, as a mask that is filled part by part
        self.labels |= {base: dataclasses.replace(label or into, dtype=base.dtype), target: part}
        current = {target} if label is None else {base, target}
        for shared in sharing(base):
            older = shared.maker is None or shared.maker.number < now
            if not older or shared in current or not any(reader.number > now for reader in shared.readers):
                continue
            stale = [(view, maker) for view in viewed(shared) if view not in current and (maker := view.maker)]
            if label is None or not all(is_plain_view(maker) for _, maker in stale):
                call.freeze_all("a part of a tensor is written in place", self.labels[shared], *results)
                continue
            for view, maker in stale:
                current.add(view)
                if maker.operator.writes:
                    self.labels[view] = self.labels[maker.operands[0]]
                else:
                    self._label(maker)


def _given(
    value: Value, model: nn.Module, findings: Findings, slots: Slots, zero: Mapping[tuple[str, int], Tensor]
) -> Label:
    """Return the label of a constant, an input, a parameter or a buffer.

    Every dimension of a parameter, a floating-point buffer or a mask holds channels. A buffer is not trained, and so
    not zero by default. Inputs hold no channels.
    """
    if value.constant is not None:
        return Label.constant(value.constant)
    if value.origin not in (Origin.PARAMETER, Origin.BUFFER):
        return Label(value.shape, dtype=value.dtype)
    number = findings.number_of(f"the {value.origin.value} {value.path}")
    path, _, name = value.path.rpartition(".")
    axes = {}
    for dim, size in enumerate(value.shape):
        if size > 1 or (value.path, dim) in slots:  # a known dimension may be down to one channel at another width
            if (value.path, dim) not in slots:
                slots[value.path, dim] = findings.ids.new(size)
            ids = slots[value.path, dim]
            known = zero.get((value.path, dim), torch.tensor(value.origin is Origin.PARAMETER))
            axes[dim] = Axis(ids, torch.where(known, 0, number).expand(ids.shape))
            if _is_of_a_hook(model.get_submodule(path), name):
                findings.marks.append(Mark(ids, Kind.REFUSED, f"{value.path}: {HOOKED}"))
    return Label(value.shape, axes, dtype=value.dtype)


def _as_wide_as_its_input(path: str, findings: Findings, slots: Slots) -> None:
    """Unite the channels of queries, keys and values in torch's attention with those of the query's input: the code
    requires the same width, and computes the size of a head from it."""
    weights = [f"{path}.{kind}_proj_weight".lstrip(".") for kind in ("in", "q", "k", "v")]
    read = next((slots[weight, 1] for weight in weights[:2] if (weight, 1) in slots), None)
    for made in (slots[weight, 0] for weight in weights if (weight, 0) in slots):
        if read is not None:
            findings.ids.unite(made, read.repeat(made.numel() // read.numel()))


def _is_of_a_hook(module: nn.Module, name: str) -> bool:
    """Return whether a hook computes another tensor from the parameter before each run and stores it in the module;
    masks do not count."""
    made, _, kind = name.rpartition("_")
    return (
        kind in ("g", "v", "orig")
        and isinstance(vars(module).get(made), Tensor)
        and not hasattr(module, f"{made}_mask")
    )
