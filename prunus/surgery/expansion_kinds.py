"""Kinds of expansion ("cl", "ck", "fc"): the layers that each fits, its factors' kernels, the widths between them."""

from typing import Any

from torch import nn

from prunus.modules.kinds import TransposedConv
from prunus.surgery.function_preserving import holds
from prunus.surgery.layers import Layer

KINDS = ("auto", "cl", "ck", "fc")


def unfit(module: Any, kind: str) -> str | None:
    """Return why a layer cannot be expanded by a kind, None if it can."""
    if kind not in KINDS:
        return f"unknown kind {kind!r}; known: {', '.join(KINDS)}"
    linear = isinstance(module, nn.Linear)
    if kind == "auto" or linear == (kind == "fc"):
        return None if kind != "ck" else _unfit_for_ck(module)
    return (
        f"{kind} expands {'linear layers' if kind == 'fc' else 'convolutions'}, and this is a {type(module).__name__}"
    )


def _unfit_for_ck(module: Any) -> str | None:
    size = module.kernel_size[0]
    if isinstance(module, TransposedConv):
        return "ck expands convolutions, not transposed ones: use cl"
    if set(module.kernel_size) != {size} or size % 2 == 0 or size <= 3:
        return (
            f"ck takes square kernels of odd k > 3, and this one is {' x '.join(map(str, module.kernel_size))}: use cl"
        )
    return None


def suited(layer: Layer, module: Any, rate: float, keep_function: bool) -> str:
    """Return the kind that suits a layer: "ck" if the layer allows it and, if asked, it can keep the function."""
    if isinstance(module, nn.Linear):
        return "fc"
    if _unfit_for_ck(module):
        return "cl"
    outer, inner, kernel = layer.sizes
    wide_enough = not keep_function or holds((outer, inner, *kernel), widths_of(layer, "ck", rate))
    return "ck" if wide_enough else "cl"


def kernels_of(kernel: tuple[int, ...], kind: str) -> list[tuple[int, ...]]:
    """Return the kernel of each factor."""
    ones = (1,) * len(kernel)
    return [(3,) * len(kernel)] * ((kernel[0] - 1) // 2) if kind == "ck" else [ones, kernel, ones]


def num_widths(layer: Layer, kind: str) -> int:
    """Return the number of widths between the factors."""
    return len(kernels_of(layer.sizes[2], kind)) - 1


def widths_of(layer: Layer, kind: str, rate: float) -> tuple[int, ...]:
    """Return the channels between the factors per group: r m in the first half, r n in the second."""
    outer, inner, _ = layer.sizes
    number = num_widths(layer, kind)
    return tuple(max(1, round(rate * (inner if place < number // 2 else outer))) for place in range(number))
