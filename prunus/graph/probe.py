"""Sizes that the code writes down: run the user's own code on a narrower copy and see whether it follows.

A view to fixed sizes, a slice at a fixed position or a number that depends on a width cannot be judged from one graph.
So a few channels of every group are left out of a copy, attributes that count channels are set to what is left,
and the copy is exported: where its graph is the one that the labels predict, the code follows. Where it is not,
what the place writes down is refused, and the copy is made again without it.
"""

import dataclasses
import linecache
import re
import traceback
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node

from prunus.errors import TraceError
from prunus.graph.attributes import Binding, bindings, count, set_
from prunus.graph.build import build, numbering
from prunus.graph.call import Findings, Kind, Mark
from prunus.graph.compare import Mismatch, Reading, compare
from prunus.graph.export import export, modes_kept
from prunus.graph.groups import ChannelGroups
from prunus.graph.ids import NONE
from prunus.graph.labels import Label
from prunus.graph.narrow import Keep, shaped
from prunus.graph.place import all_nodes, flat, line, module_path, operator_name
from prunus.graph.state import Slots
from prunus.graph.walk import walk

MAX_EXPORTS = 6
MAX_ROUNDS = 30
ARITHMETIC = frozenset(
    {
        "aten::mul",
        "aten::div",
        "aten::add",
        "aten::sub",
        "aten::rsub",
        "aten::pow",
        "aten::floor_divide",
        "aten::true_divide",
        "aten::full",
        "aten::fill",
    }
)


@dataclasses.dataclass(frozen=True)
class Probe:
    """What is tried out: a network, its example, its graphs and the ids of its tensors."""

    model: nn.Module
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    readings: tuple[Reading, ...]
    slots: Slots


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Marks without written-down sizes: each is proven right, or refused; and the attributes that must follow."""

    marks: list[Mark]
    bindings: tuple[Binding, ...]


def needed(findings: Findings, readings: Iterable[Reading]) -> bool:
    """Whether a written-down size or a number among the operators makes a second look necessary."""
    if any(mark.kind is Kind.WRITTEN for mark in findings.marks):
        return True
    nodes = (node for reading in readings for node in all_nodes(reading.program.graph_module))
    return any(_computed(node, number) for node in nodes for number in _operands(node))


def _operands(node: Node) -> list[float]:
    """Return the numbers among the operands of arithmetic."""
    if node.op != "call_function" or operator_name(node.target) not in ARITHMETIC:
        return []
    return [operand for operand in node.args if isinstance(operand, int | float) and not isinstance(operand, bool)]


def _computed(node: Node, number: float) -> bool:
    """Whether a number is not to be read in the source line itself, so that it may be computed from a width."""
    file, _, at = line(node).rpartition(":")
    text = linecache.getline(file, int(at)) if at.isdigit() else ""
    value = re.escape(f"{abs(number):g}")
    return re.search(rf"[-+*/]\s*{value}(?![\w.])|(?<![\w.]){value}\s*[-+*/]", text) is None


def judge(probe: Probe, findings: Findings) -> Verdict:
    """Try the written-down sizes of `findings` out until what is not refused is proven."""
    written = [mark for mark in findings.marks if mark.kind is Kind.WRITTEN]
    marks = [mark for mark in findings.marks if mark.kind is not Kind.WRITTEN]
    bound = _joined(bindings(probe.model, written), findings)
    still = torch.zeros(findings.ids.count, dtype=torch.bool)  # ids that are left whole
    runs_on_meta: bool | None = None  # seen when something goes wrong there
    exports = 0
    for _ in range(MAX_ROUNDS):
        marks, written, bound = _without_refused(findings, marks, written, bound)
        trial = dataclasses.replace(findings, marks=marks)
        alive = _alive(probe, trial, still, written)
        if bool(alive.all()):
            return Verdict(marks + _refused(written, "nothing of it could be tried out"), ())
        keep = _keep(probe.slots, alive)
        wrong = None if runs_on_meta is False else _crash(probe, keep, _values(bound, alive), device="meta")
        if wrong is not None and runs_on_meta is None:
            runs_on_meta = _crash(probe, {}, (), device="meta") is None
            wrong = wrong if runs_on_meta else None
        changed: tuple[Mismatch, ...] = ()
        if wrong is None:
            exports += 1
            wrong, changed = _compared(probe, findings, keep, _values(bound, alive), alive)
        if wrong is None and not changed:
            untried = [mark for mark in written if bool(alive[mark.ids].all())]
            return Verdict(marks + _refused(untried, "nothing of it could be tried out"), tuple(bound))
        if wrong is not None:
            blamed = _blamed(written, wrong) if exports < MAX_EXPORTS else written
            near = torch.tensor([], dtype=torch.long) if blamed else _near(probe, findings, wrong, alive)
            marks = [*marks, *_refused(blamed, wrong.reason)]
            if near.numel():  # nothing written down to blame: the channels that arrive there
                marks.append(Mark(near, f"{wrong.reason} ({wrong.line.rpartition('/')[2]})", Kind.REFUSED))
            written = [mark for mark in written if not any(mark is other for other in blamed)]
            continue
        for place in changed:
            near = _near(probe, findings, place, alive)
            marks = [*marks, Mark(near, f"{place.reason} ({place.line})", Kind.APPROXIMATE)]
            still[near] = True
        still = _whole_classes(findings, still)
    everything = torch.arange(1, findings.ids.count)
    return Verdict([*marks, Mark(everything, f"not settled in {MAX_ROUNDS} tries at other widths", Kind.REFUSED)], ())


def _joined(found: list[Binding], findings: Findings) -> list[Binding]:
    """One attribute counts one thing: where it is bound twice, what it counts goes together."""
    first: dict[tuple[str, str, int], Binding] = {}
    for binding in found:
        other = first.setdefault(binding.key, binding)
        findings.ids.unite(other.ids, binding.ids)
    return found


def _without_refused(
    findings: Findings, marks: list[Mark], written: list[Mark], bound: list[Binding]
) -> tuple[list[Mark], list[Mark], list[Binding]]:
    """Drop written sizes and attributes whose channels are refused altogether: nothing is to be tried there."""
    group_of = numbering(dataclasses.replace(findings, marks=[*marks, *written]))
    refused = torch.zeros(int(group_of.max()) + 2, dtype=torch.bool)
    for mark in marks:
        if mark.kind is Kind.REFUSED:
            refused[group_of[mark.ids]] = True
    refused[-1] = True

    def open_(ids: Tensor) -> bool:
        return not bool(refused[group_of[ids]].all())

    closed = [mark for mark in written if not open_(mark.ids)]
    kept = [mark for mark in written if open_(mark.ids)]
    # The reason still belongs to the channels, though another one decides.
    told = [dataclasses.replace(mark, kind=Kind.REFUSED, ids=mark.ids[mark.ids != NONE]) for mark in closed]
    return marks + told, kept, [binding for binding in bound if open_(binding.ids)]


def _refused(written: list[Mark], reason: str) -> list[Mark]:
    return [
        dataclasses.replace(mark, kind=Kind.REFUSED, ids=mark.ids[mark.ids != NONE], reason=f"{mark.reason}: {reason}")
        for mark in written
    ]


def _alive(probe: Probe, findings: Findings, still: Tensor, written: Iterable[Mark]) -> Tensor:
    """Leave out one or two groups of every layer, and one of every written-down size; bool [num_ids]."""
    group_of = numbering(findings)
    groups = build(probe.model, findings, probe.slots, [], ())
    spared = torch.zeros(len(groups) + 1, dtype=torch.bool)
    spared[group_of[still]] = True
    alive = torch.ones(len(groups) + 1, dtype=torch.bool)
    candidates = groups.removable & ~spared[:-1]
    for layer in range(len(groups.layer_names)):
        inside = (candidates & (groups.layers == layer)).nonzero().flatten()
        num = 1 + layer % 2 if inside.numel() > 8 else 1
        alive[inside[-num:]] = False
    for mark in written:
        counted = group_of[mark.ids]
        inside = counted[(counted >= 0) & candidates[counted]]
        if inside.numel() and bool(alive[inside].all()):
            alive[inside[-1]] = False
    _spare_narrow(groups, alive)
    return alive[group_of]


def _spare_narrow(groups: ChannelGroups, alive: Tensor) -> None:
    """Leave tensors whole that would be left with nothing."""
    for slot in groups.slots:
        if not bool(alive[slot.groups].any()):
            alive[slot.groups] = True


def _keep(slots: Slots, alive: Tensor) -> Keep:
    keep: dict[str, dict[int, Tensor]] = {}
    for (path, dim), ids in slots.items():
        if not bool(alive[ids].all()):
            keep.setdefault(path, {})[dim] = alive[ids].nonzero().flatten()
    return keep


Setting = tuple[str, str, int, int]  # path, name, item, value


def _values(bound: Iterable[Binding], alive: Tensor) -> tuple[Setting, ...]:
    return tuple({(*binding.key, count(binding.ids, alive)) for binding in bound})


def _copy(probe: Probe, keep: Keep, settings: Iterable[Setting], device: str | None) -> nn.Module:
    small = shaped(probe.model, keep, device)
    for path, name, item, value in settings:
        set_(small, path, name, item, value)
    return small


def _crash(probe: Probe, keep: Keep, settings: Iterable[Setting], device: str) -> Mismatch | None:
    """Run the narrower network on shapes alone; return where it fails."""
    small = _copy(probe, keep, settings, device)
    try:
        args, kwargs = _on(probe.args, device), _on(dict(probe.kwargs), device)
        with torch.no_grad(), modes_kept(small):
            small.eval()(*args, **kwargs)
    except Exception as error:  # whatever the user's own code raises at a width that it does not expect
        return _place(error, small)
    return None


def _on(value: Any, device: str) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: _on(item, device) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_on(item, device) for item in value)
    return value


def _compared(
    probe: Probe, findings: Findings, keep: Keep, settings: Iterable[Setting], alive: Tensor
) -> tuple[Mismatch | None, tuple[Mismatch, ...]]:
    roots = torch.from_numpy(findings.ids.classes())
    changed: list[Mismatch] = []
    small = _copy(probe, keep, settings, None)
    for reading in probe.readings:
        try:
            program = export(small, probe.args, probe.kwargs, training=reading.training)
            slots = {key: ids[alive[ids]] for key, ids in probe.slots.items()}
            again = Findings()
            again.ids.new(findings.ids.count)
            narrow = Reading(program, walk(program, small, again, slots), reading.training)
        except TraceError as error:
            return _place(error.__cause__ or error, small), ()
        except (RuntimeError, ValueError, IndexError, TypeError) as error:  # a rule that the changed graph upsets
            return Mismatch(f"cannot be read at another width: {error}", "", ""), ()
        result = compare(reading, narrow, alive, roots)
        if result.mismatch is not None:
            return result.mismatch, ()
        changed.extend(result.changed)
    return None, tuple(changed)


def _place(error: BaseException, model: nn.Module) -> Mismatch:
    """Return where in the user's code an exception arose."""
    paths = {id(module): path for path, module in model.named_modules()}
    module, place = "", ""
    for frame, number in traceback.walk_tb(error.__traceback__):
        module = paths.get(id(frame.f_locals.get("self")), module)
        file = frame.f_code.co_filename
        if "/torch/" not in file and "/prunus/graph/" not in file:
            place = f"{file}:{number}"
    text = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return Mismatch(f"the code does not run at another width: {text[:160]}", module, place)


def _blamed(written: list[Mark], wrong: Mismatch) -> list[Mark]:
    """Return the written sizes at the very line, else those of the innermost module around it that has some.

    The same line does the same in every module that runs it.
    """
    found = [mark for mark in written if wrong.line and mark.line == wrong.line]
    path = wrong.module
    while not found and path:
        found = [mark for mark in written if mark.module == path]
        path = path.rpartition(".")[0]
    lines = {mark.line for mark in found}
    return [mark for mark in written if mark.line in lines]


def _near(probe: Probe, findings: Findings, place: Mismatch, alive: Tensor) -> Tensor:
    """Return the channels left out that reach the line, else its modules, else all of them: whole classes of ids."""
    roots = torch.from_numpy(findings.ids.classes())
    for ids in _reaching(probe, place):
        gone = ids[~alive[ids]]
        if gone.numel():
            families = _families(probe, roots[gone], roots)
            return families[families != NONE]
    families = _families(probe, roots[~alive], roots)
    return families[families != NONE]


def _families(probe: Probe, gone: Tensor, roots: Tensor) -> Tensor:
    """Return all ids of the tensors' dimensions that hold one of the classes `gone`."""
    found = [ids for ids in probe.slots.values() if bool(torch.isin(roots[ids], gone).any())]
    return torch.unique(torch.cat(found)) if found else gone


def _reaching(probe: Probe, place: Mismatch) -> Iterator[Tensor]:
    nodes = [(reading, node) for reading in probe.readings for node in all_nodes(reading.program.graph_module)]
    here = [(r, n) for r, n in nodes if (n.name == place.node if place.node else place.line and line(n) == place.line)]
    kinds = {path: type(module) for path, module in probe.model.named_modules(remove_duplicate=False)}
    kind = kinds.get(place.module)
    modules = {path for path in kinds if path and kinds[path] is kind} or {module_path(node) for _, node in here}
    here = [(r, n) for r, n in here if place.node or any(_within(module_path(n), path) for path in modules)]
    inside = [(r, n) for r, n in nodes if any(_within(module_path(n), path) for path in modules)]
    for group in (here, inside):
        labels = [
            label
            for reading, node in group
            for other in (node, *node.all_input_nodes)
            for label in flat(reading.labels.get(other))
        ]
        found = [axis.ids for label in labels if isinstance(label, Label) for axis in label.axes.values()]
        if found:
            yield torch.cat(found)


def _within(path: str, outer: str) -> bool:
    return not outer or path == outer or path.startswith(f"{outer}.")


def _whole_classes(findings: Findings, ids: Tensor) -> Tensor:
    roots = torch.from_numpy(findings.ids.classes())
    return torch.isin(roots, roots[ids])
