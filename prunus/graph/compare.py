"""Hold a narrower network's graph against what the labels of the wide one predict."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node

from prunus.graph.findings import Factor
from prunus.graph.ids import NONE
from prunus.graph.labels import Label
from prunus.graph.place import flat, line, module_path, operator_name
from prunus.graph.program import Program
from prunus.graph.shapes import Shapes
from prunus.graph.state import Slots
from prunus.graph.walk import Labels

# Operators whose numbers say where data goes: the labels of their outputs tell whether it went right.
MOVES = frozenset(
    {
        "aten::view",
        "aten::reshape",
        "aten::_unsafe_view",
        "aten::flatten",
        "aten::unflatten",
        "aten::expand",
        "aten::expand_as",
        "aten::broadcast_to",
        "aten::affine_grid_generator",
        "aten::repeat",
        "aten::slice",
        "aten::narrow",
        "aten::select",
        "aten::split",
        "aten::split_with_sizes",
        "aten::chunk",
        "aten::unsafe_split",
        "aten::unsafe_chunk",
        "aten::layer_norm",
        "aten::group_norm",
        "aten::conv1d",
        "aten::conv2d",
        "aten::conv3d",
        "aten::conv_transpose1d",
        "aten::conv_transpose2d",
        "aten::conv_transpose3d",
        "aten::zeros",
        "aten::ones",
        "aten::full",
        "aten::empty",
        "aten::new_zeros",
        "aten::new_ones",
        "aten::new_full",
        "aten::new_empty",
        "aten::arange",
        "aten::channel_shuffle",
    }
)


@dataclasses.dataclass(frozen=True)
class Reading:
    """A walked graph: of the network in evaluation or in training mode."""

    program: Program
    labels: Labels
    training: bool
    macs: list[tuple[str, tuple[Factor, ...]]]  # as in `Findings`


@dataclasses.dataclass(frozen=True)
class Probe:
    """What is tried out: a network, its example, its graphs, the ids of its tensors.

    Attributes:
        on_shapes: whether the network runs on shapes alone; None where that is not known.
        shapes: what is known of operators on shapes alone.
    """

    model: nn.Module
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    readings: tuple[Reading, ...]
    slots: Slots
    on_shapes: bool | None
    shapes: Shapes = dataclasses.field(default_factory=Shapes)


@dataclasses.dataclass(frozen=True)
class Mismatch:
    """A place where the narrower network is not what it should be; its node's number in the walk, -1 if unknown."""

    reason: str
    module: str
    line: str
    node: str = ""

    @property
    def told(self) -> str:
        """The reason, and the line where one is known, else the module."""
        place = self.line.rpartition("/")[2] or (f"in {self.module}" if self.module else "")
        return f"{self.reason} ({place})" if place else self.reason


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The first node that went wrong, and the nodes with numbers that changed with the widths."""

    mismatch: Mismatch | None
    changed: tuple[Mismatch, ...] = ()


def compare(wide: Reading, narrow: Reading, alive: Tensor, roots: Tensor) -> Comparison:
    """Compare two graphs node by node: operators, arguments, and the channels along every dimension.

    Args:
        wide: the graph of the network as it is.
        narrow: the graph of the network without the ids that are not alive.
        alive: bool [num_ids].
        roots: the class of each id, [num_ids].
    """
    changed: list[Mismatch] = []
    first, second = list(wide.program.graph.nodes), list(narrow.program.graph.nodes)
    for a, b in zip(first, second, strict=False):
        place = (module_path(a), line(a), a.name)
        if (a.op, str(a.target) if a.op == "call_function" else "") != (
            b.op,
            str(b.target) if b.op == "call_function" else "",
        ):
            return Comparison(Mismatch(f"{_name(a)} becomes {_name(b)} at another width", *place), tuple(changed))
        if a.op != "call_function":
            continue
        for x, y in zip(flat(wide.labels.get(a)), flat(narrow.labels.get(b)), strict=False):
            if isinstance(x, Label) and isinstance(y, Label) and (text := _difference(x, y, alive, roots)):
                return Comparison(Mismatch(f"{operator_name(a.target)} {text}", *place), tuple(changed))
        if _is_computed(a, b, wide.labels.get(a), narrow.labels.get(b)):
            changed.append(Mismatch(f"a number in {operator_name(a.target)} is computed from the width", *place))
    if len(first) != len(second):
        return Comparison(Mismatch("the code runs otherwise at another width", "", ""), tuple(changed))
    return Comparison(None, tuple(changed))


def _is_computed(a: Node, b: Node, wide: Any, narrow: Any) -> bool:
    """Whether numbers that an operator takes, or a constant that it makes of them, change with the widths."""
    if operator_name(a.target) not in MOVES and list(_numbers(a)) != list(_numbers(b)):
        return True
    labels = zip(flat(wide), flat(narrow), strict=False)
    return any(isinstance(x, Label) and isinstance(y, Label) and not x.has_values_of(y) for x, y in labels)


def _difference(wide: Label, narrow: Label, alive: Tensor, roots: Tensor) -> str:
    if len(wide.shape) != len(narrow.shape):
        return f"has {len(narrow.shape)} dimensions at another width, {len(wide.shape)} at this one"
    for dim, size in enumerate(wide.shape):
        ids = wide.axes[dim].ids if dim in wide.axes else None
        kept = None if ids is None else ids[alive[ids]]
        expected = size if kept is None else kept.numel()
        if narrow.shape[dim] != expected:
            if kept is None and wide.uniform(dim) and narrow.uniform(dim):
                continue
            return f"has size {narrow.shape[dim]} along dimension {dim} where {expected} of {size} channels are left"
        if expected > 1:
            found = narrow.axes[dim].ids if dim in narrow.axes else torch.full((expected,), NONE)
            if not torch.equal(roots[found], roots[kept] if kept is not None else torch.full((expected,), NONE)):
                return f"mixes up channels along dimension {dim}"
    return ""


def _numbers(node: Node) -> Iterator[Any]:
    """Yield the arguments that are no tensors."""
    for value in flat([*node.args, *node.kwargs.values()]):
        if isinstance(value, int | float | str):
            yield value


def _name(node: Node) -> str:
    return operator_name(node.target) if node.op == "call_function" else node.op
