"""Compose consecutive linear layers into one: the exact product of their filters, biases and image borders included.

With kernels v, w, strides s, t and dilations d, e (first, second), for each dimension

    W[o, i, d q + s e p] = sum over c, q, p of w[o, c, p] v[c, i, q],   stride s t,
    b[o] = b2[o] + sum over c, p of w[o, c, p] b1[c],

(Guo, Alvarez & Salzmann, NeurIPS 2020, sec. 3). For transposed layers the taps lie at t d q + e p instead. A product
that would differ at the image's border is refused.
"""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from types import EllipsisType

import torch
from torch import Tensor

from prunus.errors import EditError
from prunus.surgery.filters import Filter, split_blocks, taps


def compose_all(parts: Sequence[Filter], places: Sequence[str]) -> Filter:
    """Return the one filter that computes `parts` in order; the cheapest neighbours are multiplied first.

    Raises:
        EditError: two neighbours cannot be one layer; the message names them.
    """
    left, names = list(parts), list(places)
    while len(left) > 1:
        costs = [_cost(first, second) for first, second in itertools.pairwise(left)]
        at = costs.index(min(costs))
        left[at : at + 2] = [compose(left[at], left[at + 1], names[at], names[at + 1])]
        names[at : at + 2] = [f"{names[at]} with {names[at + 1]}"]
    return left[0]


def compose(first: Filter, second: Filter, first_place: str, second_place: str) -> Filter:
    """Return the filter that computes `first`, then `second`; raise `EditError` if they cannot be one layer."""
    where = f"{second_place} behind {first_place}"
    if len(first.kernel) != len(second.kernel) or first.channels[1] != second.channels[0]:
        raise EditError(
            f"{where}: kernels {list(first.kernel)} and {list(second.kernel)}, {first.channels[1]} channels for "
            f"{second.channels[0]}: they do not fit each other"
        )
    first, second = _alike(first, second, where)
    if first.transposed:
        padding, output_padding = _transposed_borders(first, second, where)
        mode = "zeros"
    else:
        padding, output_padding = _borders(first, second, where), first.output_padding
        mode = _mode(first, second, where)
    stride = tuple(a * b for a, b in zip(first.stride, second.stride, strict=True))
    groups = math.gcd(first.groups, second.groups)
    weights = split_blocks(first.weight, groups), split_blocks(second.weight, groups)
    steps = [
        (t * d if first.transposed else d, e if first.transposed else s * e)
        for s, d, t, e in zip(first.stride, first.dilation, second.stride, second.dilation, strict=True)
    ]
    weight, dilation = _product(*weights, steps)
    dilation = tuple(  # a kernel of size 1 does not use its dilation, but torch bounds the output padding by it
        max(d, e) if size == 1 else own
        for size, own, d, e in zip(weight.shape[3:], dilation, first.dilation, second.dilation, strict=True)
    )
    if any(added >= max(pair) for *pair, added in zip(stride, dilation, output_padding, strict=True)):
        raise EditError(
            f"{where}: no single layer has stride {stride}, dilation {dilation} and output padding {output_padding}"
        )
    result = dataclasses.replace(first, weight=weight, bias=_bias(first.bias, weights[1], second.bias))
    return dataclasses.replace(
        result, stride=stride, dilation=dilation, padding=padding, output_padding=output_padding, mode=mode
    )


def _cost(first: Filter, second: Filter) -> int:
    """Return the multiply-adds of the product."""
    groups = math.gcd(first.groups, second.groups)
    (inner, middle), (_, outer) = first.channels, second.channels
    return (
        groups * (inner // groups) * (middle // groups) * (outer // groups) * taps(first.kernel) * taps(second.kernel)
    )


def _is_pointwise(part: Filter) -> bool:
    sizes = {*part.kernel, *part.stride}
    return sizes <= {1} and not any(map(any, part.padding)) and not any(part.output_padding)


def _alike(first: Filter, second: Filter, where: str) -> tuple[Filter, Filter]:
    """Make both direct or both transposed, since a 1x1 convolution can be either."""
    if first.transposed == second.transposed:
        return first, second
    spreading, other = (first, second) if first.transposed else (second, first)
    if _is_pointwise(other):
        return dataclasses.replace(first, transposed=True), dataclasses.replace(second, transposed=True)
    if _is_pointwise(spreading):
        return dataclasses.replace(first, transposed=False), dataclasses.replace(second, transposed=False)
    raise EditError(f"{where}: a convolution and a transposed convolution, neither of them 1x1, cannot be one layer")


def _borders(first: Filter, second: Filter, where: str) -> tuple[tuple[int, int], ...]:
    """Return the padding of the product.

    Padding in the second layer equals padding in the first only if the first layer's response to the padding is that
    padding: a kernel of size 1 along this dimension, and no bias for zeros, no stride or padding for other modes.
    """
    result = []
    for size, stride, own, later in zip(first.kernel, first.stride, first.padding, second.padding, strict=True):
        if later == (0, 0):
            result.append(own)
            continue
        zeros = second.mode == "zeros"
        if size > 1 or (zeros and first.bias is not None) or (not zeros and (stride > 1 or own != (0, 0))):
            why = "a kernel" if size > 1 else "a bias" if zeros else "a stride or a padding"
            raise EditError(f"{where}: it pads {later} after {why}, so the borders differ: pad in the first layer")
        result.append((own[0] + stride * later[0], own[1] + stride * later[1]))
    return tuple(result)


def _mode(first: Filter, second: Filter, where: str) -> str:
    modes = {part.mode for part in (first, second) if any(map(any, part.padding))}
    if len(modes) > 1:
        raise EditError(f"{where}: one pads with {first.mode}, the other with {second.mode}")
    return modes.pop() if modes else first.mode


def _transposed_borders(
    first: Filter, second: Filter, where: str
) -> tuple[tuple[tuple[int, int], ...], tuple[int, ...]]:
    """Return (padding, output_padding); cropping between two transposed kernels cannot be moved behind the second."""
    if first.bias is not None and not _is_pointwise(second):
        raise EditError(f"{where}: a bias before a transposed kernel meets fewer taps at the border: leave it out")
    padding, output_padding = [], []
    for dim in range(len(first.kernel)):
        parts = [
            (part.kernel[dim], part.stride[dim], part.padding[dim], part.output_padding[dim])
            for part in (first, second)
        ]
        plain = [(size, stride, pads, behind) == (1, 1, (0, 0), 0) for size, stride, pads, behind in parts]
        if not any(plain) and (parts[0][2] != (0, 0) or parts[0][3]):
            raise EditError(f"{where}: the first crops or adds at the border before the second spreads")
        chosen = parts[0] if plain[1] else parts[1]
        padding.append(chosen[2])
        output_padding.append(chosen[3])
    return tuple(padding), tuple(output_padding)


def _product(first: Tensor, second: Tensor, steps: Sequence[tuple[int, int]]) -> tuple[Tensor, tuple[int, ...]]:
    """Return the product of two weights [groups, out, in, *kernel] whose taps lie `steps` apart, and its dilation."""
    sizes, dilation, strides = [], [], []
    for a, b, (step, other) in zip(first.shape[3:], second.shape[3:], steps, strict=True):
        common = math.gcd(step if a > 1 else 0, other if b > 1 else 0) or 1
        sizes.append(((a - 1) * step + (b - 1) * other) // common + 1)
        dilation.append(common)
        strides.append((step // common, other // common))
    result = first.new_zeros(first.shape[0], second.shape[1], first.shape[2], *sizes)
    if first.is_meta:
        return result, tuple(dilation)
    # Iterate over the taps of the smaller kernel, and multiply the other kernel as a whole by each of them.
    tap_first = taps(first.shape[3:]) <= taps(second.shape[3:])
    walked, whole = (first, second) if tap_first else (second, first)
    paces = strides if tap_first else [(other, step) for step, other in strides]
    for position in itertools.product(*(range(size) for size in walked.shape[3:])):
        spot: tuple[EllipsisType | int, ...] = (..., *position)
        spans = [
            slice(at * walk, at * walk + (size - 1) * pace + 1, max(pace, 1))
            for at, size, (walk, pace) in zip(position, whole.shape[3:], paces, strict=True)
        ]
        place: tuple[EllipsisType | slice, ...] = (..., *spans)
        result[place] += _matrix_product(whole, walked[spot], tap_first=tap_first)
    return result, tuple(dilation)


def _matrix_product(whole: Tensor, tap: Tensor, *, tap_first: bool) -> Tensor:
    """Multiply each tap of `whole` [groups, out, in, *kernel] by one matrix, [groups, out, in]."""
    if taps(whole.shape[3:]) == 1:
        matrix = whole.reshape(whole.shape[:3])
        product = matrix @ tap if tap_first else tap @ matrix
    else:
        product = torch.einsum("gocp,gci->goip" if tap_first else "gcip,goc->goip", whole.flatten(3), tap)
    return product.reshape(*product.shape[:3], *whole.shape[3:])


def _bias(first: Tensor | None, weight: Tensor, second: Tensor | None) -> Tensor | None:
    if first is None:
        return second
    summed = weight.flatten(3).sum(3) if weight.dim() > 3 else weight
    seen = torch.einsum("goc,gc->go", summed, first.reshape(weight.shape[0], -1)).flatten()
    return seen if second is None else seen + second
