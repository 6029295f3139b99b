"""The exact solver: determine the channel groups to remove so that the budget holds and the least importance is lost.

1. The Lagrangian dual over equally spaced widths bounds the loss from below (`lagrangian.py`).
2. A mixed-integer linear programme chooses among the widths that the dual leaves open (`integer_programme.py`).
3. The same programme chooses again around the solution, at ever smaller spacing, down to single channels.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from torch import Tensor

from prunus.budget.budget import out_of_reach
from prunus.budget.choices import Layer, below, layer_choices, removed, sampled
from prunus.budget.elimination import largest_table
from prunus.budget.integer_programme import cheapest
from prunus.budget.lagrangian import ROUNDING, Dual, dual
from prunus.budget.tables import Tables, cost_tables, importance_tables
from prunus.graph import ChannelGroups

SAMPLES = (32, 16, 8)  # widths per layer for the dual, as its tables allow
MOST_ENTRIES = 1 << 21  # of the dual's largest table
OPEN = 5  # choices per layer in one programme
MOST_ENTRIES_OPEN = 20_000  # of all tables of one programme; above it, fewer choices are open


Costs = Callable[[Sequence[Layer]], Mapping[str, Tables]]  # costs of the layers' choices; none may exceed zero
Places = list[int]  # one choice per layer, as an index


@dataclasses.dataclass(frozen=True, kw_only=True)
class Solution:
    """The groups to remove, and a proven bound.

    Attributes:
        removed: the groups to remove, bool [num_groups].
        lost: the importance of these groups.
        kept: the importance of the exactly removable groups that stay.
        bound: the least importance that any choice within the budget may lose. It covers all widths where each
            size is linear in a layer's number of channels and no cost is quadratic in one; else the sampled widths.
    """

    removed: Tensor
    lost: float
    kept: float
    bound: float

    @property
    def gap(self) -> float:
        """The additional importance that the best choice can keep, at most, as a share of `kept`."""
        return max(0.0, self.lost - self.bound) / self.kept if self.kept > 0 else 0.0


def solve(
    groups: ChannelGroups,
    importance: Tensor,
    bounds: Mapping[str, float],
    floor: Mapping[str, int],
    multiple_of: int = 1,
    *,
    further: Costs | None = None,
    step: int = 1,
) -> Solution:
    """Return the groups to remove so that the cost fits `bounds` and the least importance is lost.

    Args:
        groups: `prunus.trace` of the network.
        importance: [num_groups].
        bounds: on "macs" and "params".
        floor: groups that each layer keeps, by name; see `floors`.
        multiple_of: each layer keeps a multiple of this.
        further: other bounded costs, such as a modelled latency.
        step: these other costs jump at widths that are multiples of this.

    Raises:
        BudgetError: the bounds cannot be met; names the smallest cost that can be reached.
    """
    layers = layer_choices(groups, importance, floor, multiple_of)

    def costs(chosen: Sequence[Layer]) -> dict[str, Tables]:
        exact = cost_tables(groups, chosen, bounds)
        return {**{kind: exact[kind].over(bounds[kind]) for kind in bounds}, **(further(chosen) if further else {})}

    least = [layer.counts.size - 1 for layer in layers]
    if _excess(layers, least, costs) > ROUNDING:
        raise out_of_reach(groups, ~removed(groups, layers, least), bounds)
    places, bound = _solved(layers, least, costs, step)
    lost = _lost(layers, places)
    kept = float(importance[groups.exact].double().sum()) - lost
    return Solution(removed=removed(groups, layers, places), lost=lost, kept=kept, bound=bound)


def _solved(layers: Sequence[Layer], least: Places, costs: Costs, step: int) -> tuple[Places, float]:
    """Return the best choices found and a lower bound on any loss; `least` are the smallest network's choices."""
    whole = [0] * len(layers)
    if _excess(layers, whole, costs) <= ROUNDING:
        return whole, 0.0
    found, sampled_places = _sampled_dual(layers, costs, step)
    near = [
        [int(place[one]) for place, one in zip(sampled_places, point.chosen, strict=True)] for point in found.points
    ]
    between = [_between(place, column) for place, column in zip(sampled_places, zip(*near, strict=True), strict=True)]
    best = _better(layers, between, costs, near[0])
    distances = [max(1, layer.counts.size // SAMPLES[0], min(step, layer.counts.size // 2)) for layer in layers]
    while True:
        around = [_around(*one) for one in zip(layers, best, distances, strict=True)]
        before, best = best, _better(layers, around, costs, best)
        if best == before and max(distances) == 1:
            break
        if best == before or max(distances) > 1:
            distances = [max(1, distance // 2) for distance in distances]
    return best, found.bound


def _sampled_dual(layers: Sequence[Layer], costs: Costs, step: int) -> tuple[Dual, list[np.ndarray]]:
    """Return the dual over equally spaced widths, and their indices among each layer's choices."""
    for most in SAMPLES:
        places = [sampled(layer, most, step) for layer in layers]
        few = [layer.at(place) for layer, place in zip(layers, places, strict=True)]
        tables, sizes = costs(few), [layer.counts.size for layer in few]
        if largest_table([scope for cost in tables.values() for scope in cost.tables], sizes) <= MOST_ENTRIES:
            break
    lost = Tables(0.0, {(number,): below(layers[number], place) for number, place in enumerate(places)})
    return dual(lost, tables, sizes, ([0] * len(few), [size - 1 for size in sizes])), places


def _better(layers: Sequence[Layer], places: Sequence[np.ndarray], costs: Costs, best: Places) -> Places:
    """Return the best choices among `places`, or `best` where none of them loses less."""
    places = _fewer(places, best, costs, layers)
    few = [layer.at(place) for layer, place in zip(layers, places, strict=True)]
    chosen = cheapest(importance_tables(few), costs(few), [place.size for place in places])
    if chosen is None:
        return best
    found = [int(place[one]) for place, one in zip(places, chosen, strict=True)]
    better = _lost(layers, found) < _lost(layers, best) and _excess(layers, found, costs) <= ROUNDING
    return found if better else best


def _fewer(places: Sequence[np.ndarray], best: Places, costs: Costs, layers: Sequence[Layer]) -> list[np.ndarray]:
    """Return each layer's `places` nearest to `best`, so few that the tables stay small."""
    scopes = {scope for cost in costs(_only(layers, best)).values() for scope in cost.tables if len(scope) > 1}
    for most in range(OPEN, 1, -1):
        left = [_nearest(place, one, most) for place, one in zip(places, best, strict=True)]
        if sum(math.prod(left[one].size for one in scope) for scope in scopes) <= MOST_ENTRIES_OPEN:
            break
    return left


def _nearest(places: np.ndarray, best: int, most: int) -> np.ndarray:
    """Return `best` and the entries of `places` nearest to it, ascending, `most` in all."""
    both = np.union1d(places, [best])
    return np.sort(both[np.abs(both - best).argsort(kind="stable")[:most]])


def _between(places: np.ndarray, near: Sequence[int]) -> np.ndarray:
    """Return five of `places`, from the least to the largest of `near`."""
    inside = places[(places >= min(near)) & (places <= max(near))]
    return np.unique(inside[np.linspace(0, inside.size - 1, OPEN).round().astype(np.int64)])


def _around(layer: Layer, place: int, distance: int) -> np.ndarray:
    """Return the choice `place`, and the ones `distance` before and after it."""
    return np.unique(np.clip([place - distance, place, place + distance], 0, layer.counts.size - 1))


def _only(layers: Sequence[Layer], places: Places) -> list[Layer]:
    return [layer.at(np.array([place])) for layer, place in zip(layers, places, strict=True)]


def _excess(layers: Sequence[Layer], places: Places, costs: Costs) -> float:
    """Return how far the highest cost of the choices `places` exceeds zero."""
    return max(cost.at([0] * len(layers)) for cost in costs(_only(layers, places)).values())


def _lost(layers: Sequence[Layer], places: Places) -> float:
    return float(sum(layer.lost[place] for layer, place in zip(layers, places, strict=True)))
