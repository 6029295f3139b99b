"""Walks an exported graph from inputs to outputs, one rule an operator."""

import operator
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.fx import Node

from prunus.errors import TraceError
from prunus.graph.call import Call
from prunus.graph.findings import Findings, Kind, Mark
from prunus.graph.ids import NONE
from prunus.graph.labels import Label, replaced
from prunus.graph.place import flat, in_place, is_view, line, module_path, operator_name, where
from prunus.graph.program import Program
from prunus.graph.rules import find, folded
from prunus.graph.state import Slots, placeholders
from prunus.modules.kinds import SizedLayer

Labels = dict[Node, Any]  # a Label, a list of them, or a plain value


def walk(program: Program, model: nn.Module, findings: Findings, slots: Slots) -> Labels:
    """Label every tensor of `program`.

    What the rules find is added to `findings`, parameters' ids to `slots`.
    """
    walker = _Walker(model, findings)
    given = placeholders(program, model, findings, slots)
    output = walker.run(program, given)
    for number, label in enumerate(flat(output)):
        if isinstance(label, Label):
            for axis in label.axes.values():
                ids = axis.ids[axis.ids != NONE]
                findings.marks.append(Mark(ids, f"reaches the network's output {number}", Kind.REFUSED))
    return walker.labels


class _Walker:
    """The state of one walk."""

    def __init__(self, model: nn.Module, findings: Findings) -> None:
        self.findings = findings
        self.labels: Labels = {}
        self.dtypes: dict[int, torch.dtype] = {}
        self.closed = {
            path: type(part).__name__
            for path, part in model.named_modules(remove_duplicate=False)
            if _kind(part)[1] and next(part.parameters(recurse=False), None) is not None
        }
        self.kinds = {path: _kind(module) for path, module in model.named_modules(remove_duplicate=False)}

    def run(self, program: Program, given: dict[str, Any]) -> Any:
        """Label the nodes of the graph; return what it returns."""
        nodes = list(program.graph.nodes)
        readers = {read: node for node in nodes for read in node.all_input_nodes}
        for node in nodes:
            if node.op == "placeholder":
                self._note(node, given[node.name])
            elif node.op == "get_attr":
                self._note(node, _attribute(program.root, node))
            elif node.op == "call_function":
                self._note(node, self._called(node))
            elif node.op == "output":
                return self._resolved(node.args[0])
            for read in (node, *node.all_input_nodes):
                if readers.get(read, node) is node:
                    self.labels[read] = replaced(self.labels[read], Label.spent)
        return None

    def _note(self, node: Node, value: Any) -> None:
        self.labels[node] = value
        for label, example in zip(flat(value), flat(node.meta.get("val")), strict=False):
            if isinstance(label, Label) and isinstance(example, torch.Tensor):
                self.dtypes[id(label)] = example.dtype

    def _resolved(self, value: Any) -> Any:
        return torch.fx.node.map_arg(value, lambda argument: self.labels[argument])

    def _called(self, node: Node) -> Any:
        args, kwargs = self._resolved(node.args), self._resolved(node.kwargs)
        if node.target is operator.getitem:
            return args[0][args[1]]
        value = node.meta.get("val")
        if any(not isinstance(size, int) for v in flat(value) if isinstance(v, torch.Tensor) for size in v.shape):
            raise TraceError(
                f"what {where(node)} gives is as large as values say, so there are no widths to read behind "
                "it: trace the submodule that has none of this, and edit it in place"
            )
        shapes = tuple(tuple(int(size) for size in v.shape) for v in flat(value) if isinstance(v, torch.Tensor))
        name, module = operator_name(node.target), module_path(node)
        settled, rigid = self.kinds.get(module, (False, False))
        number = self.findings.number_of(where(node))
        call = Call(
            name,
            node.target,
            args,
            kwargs,
            shapes,
            self.dtypes,
            number,
            module,
            line(node),
            settled,
            rigid,
            self.findings,
        )
        if rigid and module in self.closed:
            for label in call.labels:
                for axis in label.axes.values():
                    call.freeze(axis, f"torch's {self.closed[module]} keeps its sizes")
        result = folded(call)
        if result is None:
            result = find(name, node.target)(call)
        if isinstance(value, list | tuple) and isinstance(result, Label):
            result = [result]  # an operator of graphs gives a tuple, of one item too
        if in_place(node.target) and isinstance(result, Label):
            self._write(node, call, result)
        return result

    def _write(self, node: Node, call: Call, result: Label) -> None:
        """An operator wrote into its first argument; what shares its memory and is read later cannot be followed."""
        target = node.args[0]
        assert isinstance(target, Node)
        self.labels[target] = result
        base = target
        while is_view(base):
            base = base.all_input_nodes[0]
        if not any(label.axes for label in (self.labels[base], result, *call.labels) if isinstance(label, Label)):
            return  # a mask that is filled part by part: nothing here is a channel
        for shared in _sharing(base):
            if shared is not node and shared is not target and any(user > node for user in shared.users):
                for label in (*flat(self.labels.get(shared)), result, *call.labels):
                    if isinstance(label, Label):
                        for axis in label.axes.values():
                            call.freeze(axis, "a part of a tensor is written in place")


def _sharing(base: Node) -> Iterator[Node]:
    """Yield a node and all views of it."""
    yield base
    for user in base.users:
        if is_view(user) and user.all_input_nodes[0] is base:
            yield from _sharing(user)


def _kind(module: nn.Module) -> tuple[bool, bool]:
    """Return whether a module's size attributes follow its tensors, and whether they are out of reach."""
    settled = isinstance(module, SizedLayer)
    return settled, not settled and type(module).__module__.startswith("torch.nn.modules")


def _attribute(root: nn.Module, node: Node) -> Any:
    value: Any = root
    for part in str(node.target).split("."):
        value = getattr(value, part)
    return Label.constant(value) if isinstance(value, torch.Tensor) else value
