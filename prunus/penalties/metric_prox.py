"""The proximal operator of group norms in a diagonal metric, such as Adam's."""

from collections.abc import Callable

import torch
from torch import Tensor

from prunus.penalties.slices import GroupSlices

ITERATIONS = 20  # Newton's method converges quadratically, usually in five or six
PRECISION = 1e-6


@torch.no_grad()
def metric_shrink_(slices: GroupSlices, thresholds: Tensor, metric: Callable[[Tensor], Tensor]) -> Tensor:
    """Replace each group y by argmin_z 1/2 sum_i d_i (z_i - y_i)^2 + threshold ||z||_2; return which became zero.

    With n = ||z||, z_i = y_i d_i n / (d_i n + threshold), and z is zero if ||D y|| <= threshold. n solves
    h(n) = sum_i (d_i y_i / (d_i n + threshold))^2 = 1. Newton's method on 1 / sqrt(h(n)) - 1, which rises and is
    concave, climbs from n = 0 to the root without overshooting (More & Sorensen 1983).

    Args:
        slices: the groups.
        thresholds: [num_groups], >= 0; a group with threshold 0 stays as it is.
        metric: returns d of a parameter, positive, of its shape.
    """
    # Per slice, with one row per channel: the channel's group, d and (d y)^2.
    rows = []
    for one in slices.slices:
        weights = metric(one.parameter).to(thresholds.dtype)
        pulls = (weights * one.parameter).square()
        index = one.groups % (slices.num_groups + 1)
        rows.append((index, *(part.movedim(one.dim, 0).reshape(len(index), -1) for part in (weights, pulls))))
    padded = torch.cat([thresholds, thresholds.new_zeros(1)])
    reach = torch.zeros_like(padded)
    for index, _, pulls in rows:
        reach.index_add_(0, index, pulls.sum(1))
    dead, alive = (reach.sqrt() <= padded) & (padded > 0), (reach.sqrt() > padded) & (padded > 0)
    norms = torch.where(padded > 0, 0.0, 1.0).to(padded.dtype)
    for _ in range(ITERATIONS):
        heights, slopes = torch.zeros_like(padded), torch.zeros_like(padded)
        for index, weights, pulls in rows:
            bottom = weights * norms[index, None] + padded[index, None]
            terms = pulls / bottom.square()
            heights.index_add_(0, index, terms.sum(1))
            slopes.index_add_(0, index, (terms * weights / bottom).sum(1))
        step = torch.where(alive, (heights.pow(1.5) - heights) / slopes, 0.0)
        norms += step
        if bool((step.abs() <= PRECISION * norms).all()):
            break
    spreads = zip(slices.spread(norms[:-1], 1.0), slices.spread(thresholds, 0.0), strict=True)
    for one, (_, weights, _), (norm, threshold) in zip(slices.slices, rows, spreads, strict=True):
        shape = one.parameter.movedim(one.dim, 0).shape
        top = weights.reshape(shape).movedim(0, one.dim) * norm
        one.parameter.mul_((top / (top + threshold)).to(one.parameter.dtype))
    return dead[:-1]
