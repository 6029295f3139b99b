"""The choice among a few widths per layer as a mixed-integer linear programme, solved by HiGHS (scipy's `milp`).

There is one binary variable per layer and choice; exactly one per layer is 1. A table over several layers has one
variable per entry. Summed over the other dimensions, these equal the layers' binaries: where the binaries are integer,
so are the entries' variables (the local marginal polytope; Wainwright & Jordan 2008, section 4.1).
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from prunus.budget.tables import Tables

if TYPE_CHECKING:  # scipy.optimize takes a third of a second to import, needed only for solving
    from scipy.optimize import LinearConstraint

TOLERANCE = 3e-4  # relative gap at which the search ends
NODES = 200  # most nodes of the search tree; a time limit would make the result depend on the machine's load


class _Rows:
    """Linear constraints, row by row."""

    def __init__(self) -> None:
        self.rows: list[np.ndarray] = []
        self.columns: list[np.ndarray] = []
        self.values: list[np.ndarray] = []
        self.low: list[float] = []
        self.high: list[float] = []

    def add(self, columns: np.ndarray, values: np.ndarray, low: float, high: float) -> None:
        self.rows.append(np.full(columns.size, len(self.low)))
        self.columns.append(columns)
        self.values.append(values)
        self.low.append(low)
        self.high.append(high)

    def constraint(self, num_columns: int) -> "LinearConstraint":
        from scipy.optimize import LinearConstraint
        from scipy.sparse import coo_array

        entries = (np.concatenate(self.values), (np.concatenate(self.rows), np.concatenate(self.columns)))
        return LinearConstraint(coo_array(entries, shape=(len(self.low), num_columns)).tocsr(), self.low, self.high)


def cheapest(objective: Tables, costs: Mapping[str, Tables], sizes: Sequence[int]) -> list[int] | None:
    """Return the choices that minimise `objective` while every cost is at most zero, or None.

    Args:
        objective: the function to minimise; each table is over a single layer.
        costs: functions that must not exceed zero.
        sizes: the number of choices of each layer.
    """
    from scipy.optimize import Bounds, milp

    ends = [0, *itertools.accumulate(sizes)]
    columns: dict[tuple[int, ...], np.ndarray] = {
        (position,): np.arange(ends[position], ends[position + 1]) for position in range(len(sizes))
    }
    rows, num = _Rows(), ends[-1]
    for first, second in itertools.pairwise(ends):
        rows.add(np.arange(first, second), np.ones(second - first), 1, 1)
    for scope in sorted({scope for cost in costs.values() for scope in cost.tables if len(scope) > 1}):
        shape = [sizes[one] for one in scope]
        columns[scope] = np.arange(num, num + int(np.prod(shape))).reshape(shape)
        num += columns[scope].size
        _tie(rows, columns, scope)
    for cost in costs.values():
        where = [columns[scope].ravel() for scope in cost.tables]
        entries = [table.ravel() for table in cost.tables.values()]
        if entries:
            rows.add(np.concatenate(where), np.concatenate(entries), -np.inf, -cost.constant)
    weights = np.zeros(num)
    for scope, table in objective.tables.items():
        weights[columns[scope].ravel()] += table.ravel()
    found = milp(
        weights,
        integrality=np.arange(num) < ends[-1],
        bounds=Bounds(0, 1),
        constraints=rows.constraint(num),
        options={"mip_rel_gap": TOLERANCE, "node_limit": NODES},
    )
    if found.x is None:
        return None
    return [int(found.x[columns[position,]].argmax()) for position in range(len(sizes))]


def _tie(rows: _Rows, columns: Mapping[tuple[int, ...], np.ndarray], scope: tuple[int, ...]) -> None:
    """Constrain the entries at each choice of each layer of `scope` to sum to that choice's binary."""
    for dim, position in enumerate(scope):
        for choice, binary in enumerate(columns[position,]):
            entries = np.take(columns[scope], choice, axis=dim).ravel()
            rows.add(np.append(entries, binary), np.append(np.ones(entries.size), -1.0), 0, 0)
