"""Minimise a sum of tables over all choices: variable elimination (Dechter 1999), exact where the tables stay small.

A table with too many entries is not built: its parts are minimised separately (mini-buckets, Dechter & Rish 2003), and
the result is a lower bound.
"""

import math
from collections.abc import Sequence

import numpy as np

from prunus.budget.tables import Tables

MOST_ENTRIES = 1 << 21  # per table

Scope = tuple[int, ...]


def elimination_order(scopes: Sequence[Scope], sizes: Sequence[int]) -> list[int]:
    """Return an order of elimination that removes next the layer that leaves the smallest table (min-weight)."""
    neighbours: dict[int, set[int]] = {position: set() for position in range(len(sizes))}
    for scope in scopes:
        for one in scope:
            neighbours[one].update(scope)
    for position in neighbours:
        neighbours[position].discard(position)
    weights = np.log(np.asarray(sizes, dtype=np.float64))
    order = []
    while neighbours:
        best = min(neighbours, key=lambda one: (sum(weights[other] for other in neighbours[one]), one))
        around = neighbours.pop(best)
        for one in around:
            neighbours[one] |= around
            neighbours[one] -= {best, one}
        order.append(best)
    return order


def largest_table(scopes: Sequence[Scope], sizes: Sequence[int]) -> float:
    """Return the number of entries of the largest table that elimination would build."""
    largest, live = 1.0, [set(scope) for scope in scopes]
    for position in elimination_order(scopes, sizes):
        union = {position}.union(*(scope for scope in live if position in scope))
        live = [scope for scope in live if position not in scope] + [union - {position}]
        largest = max(largest, math.prod(float(sizes[one]) for one in union))
    return largest


def minimum(tables: Tables, sizes: Sequence[int], order: Sequence[int]) -> tuple[float, list[int]]:
    """Return a lower bound on the minimum of the sum of `tables`, and choices that attain it where no table was split.

    Args:
        tables: the function.
        sizes: the number of choices of each layer.
        order: the order in which layers are eliminated.
    """
    rank = {position: number for number, position in enumerate(order)}
    buckets: list[list[tuple[Scope, np.ndarray]]] = [[] for _ in order]
    for scope, table in tables.tables.items():
        buckets[min(rank[one] for one in scope)].append((scope, table))
    bound = tables.constant
    for number, position in enumerate(order):
        for part in _mini_buckets(buckets[number], sizes):
            scope, table = _sum(part)
            left = tuple(one for one in scope if one != position)
            message = table.min(axis=scope.index(position))
            if left:
                buckets[min(rank[one] for one in left)].append((left, message))
            else:
                bound += float(message)
    return bound, _decoded(buckets, order, sizes)


def _decoded(
    buckets: Sequence[Sequence[tuple[Scope, np.ndarray]]], order: Sequence[int], sizes: Sequence[int]
) -> list[int]:
    """Return the best choice of each layer given those of the layers eliminated after it."""
    chosen: dict[int, int] = {}
    for number in reversed(range(len(order))):
        position = order[number]
        values = np.zeros(sizes[position])
        for scope, table in buckets[number]:
            values = values + table[tuple(slice(None) if one == position else chosen[one] for one in scope)]
        chosen[position] = int(values.argmin())
    return [chosen[position] for position in range(len(order))]


def _mini_buckets(
    functions: Sequence[tuple[Scope, np.ndarray]], sizes: Sequence[int]
) -> list[list[tuple[Scope, np.ndarray]]]:
    """Split `functions` into parts whose sums have at most `MOST_ENTRIES` entries, or that are a single function."""
    parts: list[tuple[set[int], list[tuple[Scope, np.ndarray]]]] = []
    for scope, table in sorted(functions, key=lambda function: -function[1].size):
        for union, members in parts:
            if np.prod([float(sizes[one]) for one in union | set(scope)]) <= MOST_ENTRIES:
                union.update(scope)
                members.append((scope, table))
                break
        else:
            parts.append((set(scope), [(scope, table)]))
    return [members for _, members in parts]


def _sum(functions: Sequence[tuple[Scope, np.ndarray]]) -> tuple[Scope, np.ndarray]:
    """Return the sum as a table over the union of the scopes."""
    union = tuple(sorted({one for scope, _ in functions for one in scope}))
    total: np.ndarray = np.array(0.0)
    for scope, table in sorted(functions, key=lambda function: function[1].size):
        shape = dict(zip(scope, table.shape, strict=True))
        total = total + table.reshape([shape.get(one, 1) for one in union])
    return union, total
