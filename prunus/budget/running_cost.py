"""A network's cost while groups are removed and restored; only the terms that contain these groups are recomputed."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping

from torch import Tensor

from prunus.graph import ChannelGroups


class RunningCost:
    """`excess(groups, alive, bounds)` for a mask `alive` that changes by a few groups at a time."""

    def __init__(self, groups: ChannelGroups, alive: Tensor, bounds: Mapping[str, float]) -> None:
        self._bounds = bounds
        costs = {"macs": groups.cost.macs, "params": groups.cost.params}
        self._terms = [(kind, term) for kind in bounds for term in costs[kind]]
        self._sizes: list[list[int]] = []  # number of alive channels in each factor of each term
        self._places = defaultdict[int, list[tuple[int, int]]](list)  # group -> (term, factor), once per channel
        mask = [*alive.tolist(), True]  # index -1 (no group) is the last entry
        for number, (_, term) in enumerate(self._terms):
            members = [factor.tolist() for factor in term.factors]
            self._sizes.append([sum(mask[group] for group in factor) for factor in members])
            for position, factor in enumerate(members):
                for group in factor:
                    self._places[group].append((number, position))
        self._values = [0] * len(self._terms)
        self._totals = dict.fromkeys(bounds, 0)
        self._recount(range(len(self._terms)))

    def remove(self, bundle: Tensor) -> None:
        """Remove the groups `bundle`, which must be alive."""
        self._change(bundle, -1)

    def restore(self, bundle: Tensor) -> None:
        """Restore the groups `bundle`, which must have been removed."""
        self._change(bundle, 1)

    def excess(self) -> float:
        """Return how far the cost is above the bounds: max over kinds of cost / bound - 1."""
        return max(self._totals[kind] / bound - 1 for kind, bound in self._bounds.items())

    def _change(self, bundle: Tensor, by: int) -> None:
        places = [place for group in bundle.tolist() for place in self._places[group]]
        for number, position in places:
            self._sizes[number][position] += by
        self._recount({number for number, _ in places})

    def _recount(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            kind, term = self._terms[number]
            value = math.prod(self._sizes[number], start=term.fixed)
            self._totals[kind] += value - self._values[number]
            self._values[number] = value
