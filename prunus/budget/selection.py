"""Selection: determine the groups to remove with the budget's solver."""

from collections.abc import Callable, Mapping

from torch import Tensor

from prunus.budget.greedy_selection import greedy_selection
from prunus.budget.solve import solve
from prunus.graph import ChannelGroups

Selection = Callable[[ChannelGroups, Tensor, Mapping[str, float], Mapping[str, int], int], Tensor]


def selection(solver: str) -> Selection:
    """Return the selection function of `Budget.solver`; it takes the arguments of `greedy_selection`."""
    return {"greedy": greedy_selection, "exact": _exact}[solver]


def _exact(
    groups: ChannelGroups,
    importance: Tensor,
    bounds: Mapping[str, float],
    floor: Mapping[str, int],
    multiple_of: int = 1,
) -> Tensor:
    return solve(groups, importance, bounds, floor, multiple_of).removed
