"""The proximal operator of group norms in a diagonal metric (Adam's)."""

from collections.abc import Callable

import torch
from torch import Tensor

from prunus.penalties.slices import GroupSlices, Slice

ITERATIONS = 12  # Newton's method converges quadratically, and at once where the metric is the same for all


@torch.no_grad()
def metric_shrink_(slices: GroupSlices, thresholds: Tensor, metric: Callable[[Tensor], Tensor]) -> Tensor:
    """Replace each group y by argmin_z 1/2 sum_i d_i (z_i - y_i)^2 + threshold ||z||_2; return which became zero.

    With n = ||z||: z_i = y_i d_i n / (d_i n + threshold), and z is zero if ||D y|| <= threshold. n solves
    h(n) = sum_i (d_i y_i / (d_i n + threshold))^2 = 1. Newton's method on 1 / sqrt(h(n)) - 1, which rises and is
    concave, climbs to the root from n = 0 and never passes it (More & Sorensen 1983).

    Args:
        slices: the groups.
        thresholds: [num_groups], >= 0; a group of threshold 0 stays as it is.
        metric: d of a parameter, positive, of its shape.
    """
    weights = {id(one.parameter): metric(one.parameter).to(thresholds.dtype) for one in slices.slices}
    pulls = {id(one.parameter): weights[id(one.parameter)] * one.parameter for one in slices.slices}

    def bottom(one: Slice) -> Tensor:
        return weights[id(one.parameter)] * one.spread(norms, 1.0) + one.spread(thresholds, 0.0)

    def value(one: Slice) -> Tensor:
        return (pulls[id(one.parameter)] / bottom(one)).square()

    def slope(one: Slice) -> Tensor:
        return weights[id(one.parameter)] * value(one) / bottom(one)

    reach = slices.sums(lambda parameter: pulls[id(parameter)].square()).sqrt()
    dead = (reach <= thresholds) & (thresholds > 0)
    alive = (reach > thresholds) & (thresholds > 0)
    norms = torch.where(thresholds > 0, 0.0, 1.0).to(thresholds.dtype)
    for _ in range(ITERATIONS):
        height = slices.slice_sums(value)
        step = (height.pow(1.5) - height) / slices.slice_sums(slope)
        norms = torch.where(alive, norms + step, norms)
    for one in slices.slices:
        top = weights[id(one.parameter)] * one.spread(norms, 1.0)
        one.parameter.mul_((top / (top + one.spread(thresholds, 0.0))).to(one.parameter.dtype))
    return dead
