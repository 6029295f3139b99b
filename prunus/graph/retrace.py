"""A network's graph at another width, without a second export.

The narrower copy runs once on shapes alone, while every operator that it calls is recorded. Then the wide graph is
run on the same shapes, node by node: a node that calls what the code called, on the same tensors with the same
numbers, is the code's own. Where the numbers are others, they are taken from the code's calls and the node runs
again. So the graph that comes out is proven call by call; where no node fits there is none, and the copy must be
exported.
"""

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.export.graph_signature import InputKind
from torch.fx import Graph, Node
from torch.fx.node import map_aggregate, map_arg
from torch.utils import _pytree as pytree

from prunus.graph import recurrent
from prunus.graph.export import plain_attention
from prunus.graph.program import Program
from prunus.graph.record import META, Operation, Recorder, Run, dead, tensors


def retraced(program: Program, code: Run) -> Program | None:
    """Return the graph of what `code` did, node by node that of `program`; None where a node cannot be matched."""
    try:
        return _Matcher(program, code).program()
    except UnmatchedError:
        return None


class UnmatchedError(Exception):
    """A node does something else than the code did."""


class _Matcher:
    """Runs a graph beside the operations of the code."""

    def __init__(self, program: Program, code: Run) -> None:
        self.old, self.code = program, code
        self.dead = dead(code)
        self.position = 0
        self.twins: dict[int, Tensor] = {}  # by id of a tensor of the graph: the code's
        self.held: list[Any] = []  # tensors whose id must not be given away
        self.values: dict[Node, Any] = {}
        self.recorder = Recorder(code.shapes)

    def program(self) -> Program:
        graph, new = Graph(), dict[Node, Node]()
        nodes = list(self.old.graph.nodes)
        given = self._given()
        for node in nodes:
            copied = new[node] = graph.node_copy(node, lambda other: new[other])
            copied.name = node.name
            if node.op == "placeholder":
                self.values[node] = given[node.name]
            elif node.op == "call_function":
                args, kwargs, self.values[node] = self._called(node)
                copied.args, copied.kwargs = (map_arg(part, lambda other: new[other]) for part in (args, kwargs))
            elif node.op != "output":
                raise UnmatchedError
            if node.op != "output":
                copied.meta = {**node.meta, "val": self.values[node]}
        self._ended(nodes[-1])
        return Program(graph, self.old.graph_signature, self.old.constants, self.old.root)

    def _given(self) -> dict[str, Any]:
        """Return the value of each placeholder: the narrower network's own tensors."""
        inputs, given = iter(self.code.inputs), dict[str, Any]()
        for spec in self.old.graph_signature.input_specs:
            if spec.kind in (InputKind.PARAMETER, InputKind.BUFFER):
                path, _, name = str(spec.target).rpartition(".")
                given[spec.arg.name] = getattr(self.code.model.get_submodule(path), name)
            elif spec.kind == InputKind.USER_INPUT:
                given[spec.arg.name] = next(inputs)
            elif spec.kind == InputKind.CONSTANT_TENSOR:
                given[spec.arg.name] = self.old.constants[str(spec.target)]
            else:
                raise UnmatchedError
        return given

    def _called(self, node: Node) -> tuple[Any, Any, Any]:
        """Return the arguments with which a node does what the code did, and what comes out."""
        position = self.position
        try:
            return node.args, node.kwargs, self._tried(node, node.args, node.kwargs)
        except (UnmatchedError, RuntimeError, ValueError, IndexError):
            self.position = position
        args, kwargs = self._read_off(node)
        try:
            return args, kwargs, self._tried(node, args, kwargs)
        except (RuntimeError, ValueError, IndexError) as error:
            raise UnmatchedError from error

    def _tried(self, node: Node, args: Any, kwargs: Any) -> Any:
        result, operations = _called(node, *map_arg((args, kwargs), self.values.__getitem__), self.recorder)
        for operation in operations:
            self._match(operation)
        return result

    def _match(self, operation: Operation) -> None:
        """Find the code's operation that is this one; those that nothing came of are passed over."""
        for position in range(self.position, len(self.code.operations)):
            other = self.code.operations[position]
            if self._same(operation, other):
                self.twins.update({id(a): b for a, b in zip(operation.outputs, other.outputs, strict=True)})
                self.held.append(operation)
                self.position = position + 1
                return
            if not self.dead[position]:
                break
        raise UnmatchedError

    def _same(self, operation: Operation, other: Operation) -> bool:
        if operation.target is not other.target:
            return False
        first, second = operation.leaves, other.leaves
        return len(first) == len(second) and all(map(self._equal, first, second))

    def _equal(self, first: Any, second: Any) -> bool:
        if not isinstance(first, Tensor) or not isinstance(second, Tensor):
            return type(first) is type(second) and bool(first == second)
        if self.twins.get(id(first), first) is second:
            return True
        return not first.is_meta and not second.is_meta and torch.equal(first, second)  # constants

    def _read_off(self, node: Node) -> tuple[Any, Any]:
        """Return the arguments of a node with the numbers that the code has in their place."""
        _, wide = _called(node, *map_arg((node.args, node.kwargs), self._as_traced), self.recorder)
        narrow = self._next(wide, dead=False) or self._next(wide, dead=True)
        if not narrow:
            raise UnmatchedError
        told = [pair for pair in itertools.chain(*map(_numbers, wide, narrow)) if pair[0] != pair[1]]
        if len(wide) == 1 and wide[0].target is node.target:  # position by position: a number may stand there twice
            pairs = itertools.zip_longest(node.args, narrow[0].args[: len(node.args)])
            args = tuple(itertools.starmap(_read, pairs))
        else:
            args = tuple(_replaced(value, told) for value in node.args)
        return args, {key: _replaced(value, told) for key, value in node.kwargs.items()}

    def _next(self, wide: list[Operation], *, dead: bool) -> list[Operation]:
        """Return the next operations of the code, those that nothing comes of too where `dead`, if they are like
        `wide`; else none."""
        places = (at for at in range(self.position, len(self.dead)) if dead or not self.dead[at])
        found = [self.code.operations[at] for at in itertools.islice(places, len(wide))]
        return found if [o.target for o in found] == [o.target for o in wide] else []

    def _as_traced(self, node: Node) -> Any:
        """Return what stood in a node's place when the graph was traced, without values, in memory as it lies now."""
        old, now = node.meta["val"], self.values[node]
        return pytree.tree_map(_laid_out, old, now)

    def _ended(self, node: Node) -> None:
        """All that the code did must have been met, and what it returns must be what the graph returns."""
        returned = map(self.recorder.original, tensors(map_arg(node.args[0], self.values.__getitem__)))
        same = [self.twins.get(id(value), value) for value in returned]
        if not all(self.dead[self.position :]) or list(map(id, same)) != list(map(id, self.code.outputs)):
            raise UnmatchedError


def _called(node: Node, args: Any, kwargs: Any, recorder: Recorder) -> tuple[Any, list[Operation]]:
    """Run a node on shapes alone; return what comes out and the operators that it called."""
    target: Any = node.target
    if hasattr(target, "_schema") and not target._schema.returns and not target._schema.is_mutable:
        return None, []  # an assertion of the export's own
    args, kwargs = map_aggregate((args, kwargs), lambda value: META if isinstance(value, torch.device) else value)
    recorder.operations = []
    with torch.no_grad(), plain_attention(), recorder:
        whole = recurrent.operator(target, args)
        result = target(*args, **kwargs) if whole is None else recorder.noted(whole, args)
    return result, recorder.operations


def _laid_out(old: Any, now: Any) -> Any:
    """Return a tensor as `old` with its dimensions in memory in the order of `now`: whether a reshape copies depends
    on it, and the device may choose another."""
    if not isinstance(old, Tensor):
        return old
    orders = [sorted(range(value.dim()), key=value.stride, reverse=True) for value in (old, now)]
    if orders[0] == orders[1]:
        return torch.empty_strided(old.shape, old.stride(), dtype=old.dtype, device=META)
    return torch.empty_permuted(old.shape, orders[1], dtype=old.dtype, device=META)


def _numbers(wide: Operation, narrow: Operation) -> Iterator[tuple[Any, Any]]:
    """Yield the numbers and lists of them in the arguments and the shapes of two calls of an operator."""
    first = [*wide.args, *wide.kwargs.values(), *(list(output.shape) for output in wide.outputs)]
    second = [*narrow.args, *narrow.kwargs.values(), *(list(output.shape) for output in narrow.outputs)]
    lists = list[tuple[Any, Any]]()
    for a, b in zip(first, second, strict=False):
        if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
            if any(isinstance(item, Tensor) for item in (*a, *b)):  # `cat` takes a list of tensors
                continue
            yield a, b
            lists += zip(a, b, strict=True)
        elif isinstance(a, int | float) and isinstance(b, int | float):
            yield a, b
    yield from lists


def _read(own: Any, other: Any) -> Any:
    """Return a node's argument as the code's call has it, unless it holds tensors or the call leaves it out."""
    return own if any(isinstance(leaf, Node) for leaf in pytree.tree_leaves(own)) or other is None else other


def _replaced(value: Any, told: Iterable[tuple[Any, Any]]) -> Any:
    """Return an argument with the number, or the list of numbers, that took its place; -1 stands for any."""
    if isinstance(value, list | tuple) and all(isinstance(item, int) for item in value):
        for old, new in told:
            alike = isinstance(old, list) and len(old) == len(value)
            if alike and all(a in (-1, b) for a, b in zip(value, old, strict=True)):
                return [-1 if a == -1 else b for a, b in zip(value, new, strict=True)]
    elif type(value) in (int, float):
        return next((new for old, new in told if not isinstance(old, list) and old == value), value)
    return value
