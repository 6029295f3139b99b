"""Costs as tables: one table per set of layers that occur together, with one entry per combination of their choices.

The cost of a network is the sum of its tables' entries. A product of sizes, each a sum over layers, is a sum of
products over sets of layers, so multiply-adds and parameters are exact. A measured cost is already a table.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from prunus.budget.choices import Layer
from prunus.graph import ChannelGroups
from prunus.graph.cost import Term

Table = tuple[tuple[int, ...], np.ndarray]  # positions of layers, ascending; an array with one dimension per layer


@dataclasses.dataclass
class Tables:
    """A function of the layers' choices: constant + the sum of the entries of `tables`."""

    constant: float
    tables: dict[tuple[int, ...], np.ndarray]

    def add(self, scope: tuple[int, ...], table: np.ndarray) -> None:
        """Add `table`, over the layers at positions `scope`, ascending."""
        if not scope:
            self.constant += float(table)
        elif scope in self.tables:
            self.tables[scope] = self.tables[scope] + table
        else:
            self.tables[scope] = np.asarray(table, dtype=np.float64)

    def at(self, chosen: Sequence[int]) -> float:
        """Return the cost of the choices `chosen`, one per layer."""
        entries = (table[tuple(chosen[position] for position in scope)] for scope, table in self.tables.items())
        return self.constant + float(sum(entries))

    def over(self, bound: float) -> "Tables":
        """Return by what share the function exceeds `bound`: function / bound - 1."""
        return Tables(self.constant / bound - 1, {scope: table / bound for scope, table in self.tables.items()})


def combined(parts: Iterable[tuple[float, Tables]]) -> Tables:
    """Return the sum of weight * tables."""
    result = Tables(0.0, {})
    for weight, part in parts:
        result.constant += weight * part.constant
        for scope, table in part.tables.items():
            result.add(scope, weight * table)
    return result


def importance_tables(layers: Sequence[Layer]) -> Tables:
    """Return the importance lost by the layers' choices."""
    return Tables(0.0, {(position,): layer.lost for position, layer in enumerate(layers)})


def cost_tables(groups: ChannelGroups, layers: Sequence[Layer], kinds: Iterable[str]) -> dict[str, Tables]:
    """Return the costs of `kinds` ("macs", "params") as functions of the layers' choices."""
    sizes = Sizes(groups, layers)
    terms: Mapping[str, tuple[Term, ...]] = {"macs": groups.cost.macs, "params": groups.cost.params}
    found = {}
    for kind in kinds:
        found[kind] = Tables(0.0, {})
        for term in terms[kind]:
            product_tables(found[kind], float(term.fixed), [sizes.of(factor) for factor in term.factors])
    return found


Size = dict[int | None, np.ndarray]  # a factor's channels left by each choice, by layer; None: those that always stay


class Sizes:
    """The number of channels of a factor that each choice of each layer leaves."""

    def __init__(self, groups: ChannelGroups, layers: Sequence[Layer]) -> None:
        self._layers = layers
        self._position = np.full(len(groups) + 1, -1)  # index -1, no group, is the last
        self._rank = np.zeros(len(groups) + 1, dtype=np.int64)
        for position, layer in enumerate(layers):
            self._position[layer.order.numpy()] = position
            self._rank[layer.order.numpy()] = np.arange(layer.order.numel())
        self._known: dict[bytes, Size] = {}

    def of(self, factor: object) -> Size:
        """Return the sizes of `factor`, its channels' group numbers, int [num_channels]."""
        members = np.asarray(factor)
        key = members.tobytes()
        if key not in self._known:
            self._known[key] = self._count(members)
        return self._known[key]

    def _count(self, members: np.ndarray) -> Size:
        positions = self._position[members]
        size: Size = {None: np.array(float((positions < 0).sum()))}
        for position in np.unique(positions[positions >= 0]).tolist():
            layer = self._layers[position]
            ranks = np.sort(self._rank[members[positions == position]])
            size[position] = ranks.size - np.searchsorted(ranks, layer.counts).astype(np.float64)
        return size


def product_tables(tables: Tables, fixed: float, factors: Sequence[Size]) -> None:
    """Add fixed * the product of `factors`, each a sum over layers."""
    for parts in itertools.product(*(factor.items() for factor in factors)):
        scope = tuple(sorted({position for position, _ in parts if position is not None}))
        table = np.array(fixed)
        for position, sizes in parts:
            table = table * (sizes if position is None else along(sizes, scope.index(position), len(scope)))
        if np.any(table):
            tables.add(scope, table)


def along(vector: np.ndarray, dim: int, dims: int) -> np.ndarray:
    """Return `vector` as a tensor of `dims` dimensions, all but `dim` of size 1."""
    return vector.reshape([-1 if one == dim else 1 for one in range(dims)])
