"""The Lagrangian dual of a budget: the least importance that must be lost, and widths near the best ones.

min over widths x of lost(x) subject to cost_k(x) <= 0 is at least L(m) = min over x of lost(x) + sum_k m_k cost_k(x),
for any multipliers m >= 0. L(m) is the minimum of a sum of tables (`elimination.py`). Kelley's cutting planes find the
largest L(m): each x found so far bounds L from above by a plane.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from prunus.budget.elimination import elimination_order, minimum
from prunus.budget.tables import Tables, combined

MOST_PLANES = 60
ROUNDING = 1e-12  # share of a bound
NEAR = 1e-6  # share of the importance that can be lost: a smaller gap of bound and planes ends the search


@dataclasses.dataclass(frozen=True)
class Point:
    """Choices, one per layer, the importance that they lose, and how far their costs exceed the bounds."""

    chosen: tuple[int, ...]
    lost: float
    excess: np.ndarray


@dataclasses.dataclass(frozen=True)
class Dual:
    """The largest lower bound found.

    Attributes:
        bound: the least importance that any choice within the budget loses.
        multipliers: importance per unit of each cost, at this bound.
        points: choices nearly equally good under the multipliers, the best within the budget first.
    """

    bound: float
    multipliers: np.ndarray
    points: tuple[Point, ...]


def dual(lost: Tables, costs: Mapping[str, Tables], sizes: Sequence[int], corners: Sequence[Sequence[int]]) -> Dual:
    """Return the dual of the problem.

    Args:
        lost: the importance lost.
        costs: functions that must not exceed zero, by kind.
        sizes: the number of choices of each layer.
        corners: choices to begin with; at least one of them meets the budget.
    """

    def point(chosen: Sequence[int]) -> Point:
        return Point(tuple(chosen), lost.at(chosen), np.array([cost.at(chosen) for cost in costs.values()]))

    points = [point(corner) for corner in corners]
    scale = max(point.lost for point in points) or 1.0
    order = elimination_order([*lost.tables, *(scope for cost in costs.values() for scope in cost.tables)], sizes)
    bound, best = -np.inf, np.zeros(len(costs))
    for _ in range(MOST_PLANES):
        height, multipliers = _highest(points, scale)
        parts = zip(multipliers, costs.values(), strict=True)
        least, chosen = minimum(combined([(1.0, lost), *parts]), sizes, order)
        if least > bound:
            bound, best = least, multipliers
        known = any(one.chosen == tuple(chosen) for one in points)
        if known or height - bound <= NEAR * scale:
            break
        points.append(point(chosen))
    feasible = min((one for one in points if (one.excess <= ROUNDING).all()), key=lambda one: one.lost)
    heights = np.array([one.lost + best @ one.excess for one in points])
    near = [one for one, value in zip(points, heights, strict=True) if value <= bound + 1e-3 * scale]
    return Dual(max(bound, 0.0), best, (feasible, *near))


def _highest(points: Sequence[Point], scale: float) -> tuple[float, np.ndarray]:
    """Return the maximum over multipliers of the lowest plane, and where it is attained."""
    from scipy.optimize import linprog

    excess = np.array([point.excess for point in points])
    num = excess.shape[1]
    found = linprog(
        np.append(np.zeros(num), -1.0),
        A_ub=np.hstack([-excess, np.ones((len(points), 1))]),
        b_ub=[point.lost for point in points],
        bounds=[(0, 1e6 * scale)] * num + [(None, None)],
    )
    return float(found.x[-1]), found.x[:-1]
