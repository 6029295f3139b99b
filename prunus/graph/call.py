"""`Call`: one operation with labels in place of tensors, and the declarations that a rule can make about it."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from prunus.graph.cost import Term
from prunus.graph.findings import Findings, Kind, Mark
from prunus.graph.ids import NONE
from prunus.graph.labels import Axis, Label, Labels
from prunus.modules.tree import flat, replaced
from prunus.program import Operation


@dataclasses.dataclass(frozen=True)
class Call:
    """An operator with its arguments, tensors replaced by their labels.

    `call["dim"]` is the argument named `dim` in the operator's schema, or its default where the code passes none;
    torch's `self` is called `input`.

    Attributes:
        operation: the operator called, and where.
        arguments: the arguments by name.
        number: the operation's number in the walk, from 1.
        follows: whether the sizes among the arguments are attributes of a torch layer, which follow its tensors.
        rigid: whether the code is torch's own, with sizes that cannot be changed.
        findings: collects the rule's declarations.
    """

    operation: Operation
    arguments: dict[str, Any]
    number: int
    follows: bool
    rigid: bool
    findings: Findings

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    def get(self, name: str, default: object = None) -> Any:
        """Return the argument `name`, or `default` if the operator has none of that name."""
        return self.arguments.get(name, default)

    @property
    def args(self) -> tuple[object, ...]:
        """The arguments in the order of the schema."""
        return tuple(self.arguments[name] for name in self.operation.operator.positional)

    @property
    def name(self) -> str:
        """Return "namespace::operator"."""
        return self.operation.name

    @property
    def input(self) -> Label:
        """The label of the first tensor."""
        return self.labels[0]

    @property
    def labels(self) -> list[Label]:
        """The labels of all tensors among the arguments, those in lists included."""
        return [each for each in flat(list(self.arguments.values())) if isinstance(each, Label)]

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shapes of the outputs."""
        return tuple(value.shape for value in self.operation.results)

    def dims(self) -> set[int]:
        """Return the dimensions of the first tensor that the operator names, as non-negative numbers; all if none."""
        rank, named = len(self.input.shape), self.get("dims") or self.get("dim")
        named = [] if named is None else named if isinstance(named, list | tuple) else [named]
        return {dim % max(rank, 1) for dim in named} or set(range(rank))

    def run(self, function: Callable[[Label], object]) -> list[Tensor]:
        """Run the operator with `function(label)` in place of each tensor; return its outputs as a list."""
        result = self.operation.operator.named(replaced(self.arguments, Label, function))
        return [each for each in flat(result) if isinstance(each, Tensor)]

    def results(self, *axes: dict[int, Axis]) -> Labels:
        """Return the outputs' labels, the n-th with the n-th of `axes`; further outputs hold no channels."""
        found = [*axes, *({} for _ in self.shapes)]
        return self.outputs([Label(shape, each) for shape, each in zip(self.shapes, found, strict=False)])

    def outputs(self, labels: Sequence[Label]) -> Labels:
        """Return one label for an operator with one output, a list for several."""
        return labels[0] if len(labels) == 1 and not self.operation.operator.returns_list else list(labels)

    @property
    def where(self) -> str:
        """Return "operator in module, file:line" for messages."""
        return self.findings.reasons[self.number]

    def freeze(self, axis: Axis | Tensor | None, reason: str) -> None:
        """Refuse the removal of these channels."""
        self._mark(axis, f"{reason} ({self.where})", Kind.REFUSED)

    def freeze_all(self, reason: str, *others: Label) -> None:
        """Refuse the removal of every channel that reaches the operator, and of every channel of `others`."""
        for label in (*others, *self.labels):
            for axis in label.axes.values():
                self.freeze(axis, reason)

    def approximate(self, axis: Axis | Tensor | None, reason: str) -> None:
        """Declare that removing these channels changes the output, even when they are zero."""
        self._mark(axis, f"{reason} ({self.where})", Kind.APPROXIMATE)

    def hard_coded(
        self, axis: Axis, *, follows: bool | None = None, nth: tuple[int, int] = (0, 1), unequal: bool = False
    ) -> None:
        """Declare that the number of channels along `axis` is an argument, which the code must adapt at another width.

        `follows=True` states that it does; by default, a torch layer's sizes follow its tensors. `nth` and `unequal`
        are passed to the mark.
        """
        reason = f"{self.name.partition('::')[2]} has its size {axis.ids.numel()} hard-coded ({self.where})"
        if (self.follows if follows is None else follows) or not bool((axis.ids != NONE).any()):
            return
        kind, at = Kind.REFUSED if self.rigid else Kind.HARD_CODED, self.operation
        self.findings.marks.append(Mark(axis.ids, kind, reason, self.number, at.module, at.line, nth, unequal))

    def as_wide(self, label: Label, dim: int, like: Axis | None) -> Axis | None:
        """Return the axis of `label` at `dim`; where its values are the same along `dim`, it may follow `like`."""
        found = label.axes.get(dim)
        if found is not None or like is None or not label.uniform(dim):
            return found
        at = self.operation  # the code around a torch layer makes the tensor, so the size is hard-coded there
        around = dataclasses.replace(at, scopes=at.scopes[:-1]) if self.follows else at
        dataclasses.replace(self, operation=around).hard_coded(like, follows=False, unequal=True)
        return Axis.of(like.ids) if label.is_zero else self.changed(Axis.of(like.ids))

    def zeros(self, nth: int, size: int) -> Axis:
        """Return the axis of the `nth` zeros that the code puts beside channels: `size` must follow at every width."""
        found, alive = self.findings.made, self.findings.alive
        if alive is None:
            found[self.number, nth] = self.findings.ids.new(size)
        ids = found.get((self.number, nth), torch.zeros(size, dtype=torch.long))
        ids = ids if alive is None else ids[alive[ids]]
        axis = Axis.of(ids if ids.numel() == size else torch.zeros(size, dtype=torch.long))
        self.hard_coded(axis, follows=False, unequal=True)
        return axis

    def _mark(self, axis: Axis | Tensor | None, reason: str, kind: Kind) -> None:
        ids = axis.ids if isinstance(axis, Axis) else axis
        ids = ids[ids != NONE] if ids is not None else None
        if ids is not None and ids.numel():
            at = self.operation
            self.findings.marks.append(Mark(ids, kind, reason, self.number, at.module, at.line))

    def changed(self, axis: Axis) -> Axis:
        """Return `axis` with its channels marked as made non-zero by this operator."""
        return Axis(axis.ids, axis.source.clamp(min=self.number))

    def join(self, first: Axis | None, second: Axis | None) -> None:
        """Unite the channels of two axes of equal size; refuse channels that meet data of a fixed size."""
        if first is None or second is None:
            self.freeze(first or second, "meets data of a fixed size")
            return
        self.findings.ids.unite(first.ids, second.ids)
        self.freeze(first.ids[second.ids == NONE], "meets data of a fixed size")
        self.freeze(second.ids[first.ids == NONE], "meets data of a fixed size")

    def consume(self, axis: Axis | None) -> None:
        """Declare that a weight's dimension is contracted: it reads the channels and does not make them."""
        self.findings.mark(Kind.CONSUMED, axis)

    def produce(self, axis: Axis | None) -> None:
        """Declare that a weight's dimension makes the channels, even if the same tied weight reads them elsewhere."""
        self.findings.mark(Kind.PRODUCED, axis)

    def contract(self, first: Axis | None, second: Axis | None) -> None:
        """Declare a sum of products along two axes: unite them; a channel that is not zero in the first is approximate.

        The second is usually a weight that reads the channels: it is cut with them and need not be zero.
        """
        self.join(first, second)
        for axis in (first, second):
            self.findings.mark(Kind.CONTRACTED, axis)
        if first is not None and second is not None:
            self.blame(first.ids, first.source)

    def blame(self, ids: Tensor, source: Tensor) -> None:
        """Declare channels that are no longer zero when summed as approximate, and name the operator that did it."""
        for number in torch.unique(source[(source != 0) & (ids != NONE)]).tolist():
            reason = f"zero does not stay zero in {self.findings.reasons[number]}"
            self._mark(ids[source == number], reason, Kind.APPROXIMATE)

    def couple(self, rows: Tensor) -> None:
        """Declare that the channels in one column of `rows`, [rows, size], can only be removed together."""
        rows = torch.unique_consecutive(rows, dim=0)  # the rows are usually all equal
        if rows.shape[0] > 1:
            first = rows[0].expand_as(rows[1:])
            self.findings.ids.unite(first.reshape(-1), rows[1:].reshape(-1))
            self.freeze(rows[:, (rows == NONE).any(0)].reshape(-1), "meets data of a fixed size")

    def attend(self, *axes: Axis | None) -> None:
        """Declare that attention contracts these axes: they hold the channels inside heads."""
        for axis in axes:
            self.findings.mark(Kind.HEAD_SIZE, axis)

    def cost(self, *factors: Axis | int) -> None:
        """Add the operator's multiply-adds: the product of `factors`, an axis counting its remaining channels."""
        fixed = math.prod(size for size in factors if isinstance(size, int))
        axes = tuple(axis.ids for axis in factors if isinstance(axis, Axis))
        self.findings.macs.append(Term(self.operation.module, fixed, axes))
