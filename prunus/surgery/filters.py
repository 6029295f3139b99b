"""`Filter`: one description of torch's convolutions, transposed convolutions and linear layers.

The mathematics of reshaping works on `Filter`s, mostly in float64 on the CPU; `read` makes one from a module, `write` a
module from one. All of it also works on the meta device, where filters have no values.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from prunus.errors import EditError
from prunus.modules.kinds import Conv, TransposedConv, members

_PADS: dict[str, tuple[type[nn.Module], ...]] = {  # by the number of dimensions
    "zeros": (nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d),
    "reflect": (nn.ReflectionPad1d, nn.ReflectionPad2d, nn.ReflectionPad3d),
    "replicate": (nn.ReplicationPad1d, nn.ReplicationPad2d, nn.ReplicationPad3d),
    "circular": (nn.CircularPad1d, nn.CircularPad2d, nn.CircularPad3d),
}
PADS = tuple(kind for kinds in _PADS.values() for kind in kinds)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Filter:
    """A linear layer with D spatial dimensions; D = 0 for `nn.Linear`.

    Attributes:
        weight: [groups, out / groups, in / groups, *kernel], for a transposed convolution too.
        bias: [out] or None.
        transposed: whether it is a transposed convolution.
        stride, dilation, output_padding: D numbers each.
        padding: D pairs (before, after); for a transposed convolution the amounts cropped.
        mode: torch's `padding_mode`.
    """

    weight: Tensor
    bias: Tensor | None = None
    transposed: bool = False
    stride: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    padding: tuple[tuple[int, int], ...] = ()
    output_padding: tuple[int, ...] = ()
    mode: str = "zeros"

    @property
    def groups(self) -> int:
        """Return the number of groups."""
        return self.weight.shape[0]

    @property
    def channels(self) -> tuple[int, int]:
        """Return (in, out)."""
        groups, outer, inner = self.weight.shape[:3]
        return inner * groups, outer * groups

    @property
    def kernel(self) -> tuple[int, ...]:
        """Return the kernel's size."""
        return tuple(self.weight.shape[3:])

    def at_rest(self, weight: Tensor, bias: Tensor | None = None, *, transposed: bool = False) -> "Filter":
        """Return a filter with as many spatial dimensions, and without stride, dilation or padding."""
        ones, rank = (1,) * len(self.kernel), len(self.kernel)
        return Filter(
            weight=weight,
            bias=bias,
            transposed=transposed,
            stride=ones,
            dilation=ones,
            padding=((0, 0),) * rank,
            output_padding=(0,) * rank,
        )


def values(tensor: Tensor, place: str) -> Tensor:
    """Return a layer's tensor in float64 on the CPU, or on the meta device if it is there; refuse non-finite values."""
    numbers = tensor.detach()
    if numbers.is_meta:
        return numbers.double()
    numbers = numbers.to("cpu", torch.float64)
    if not bool(numbers.sum().isfinite()):  # the sum is finite as long as all values are
        raise EditError(f"{place} holds values that are not finite: there is nothing to start from")
    return numbers


def at_hand(tensor: Tensor, place: str) -> Tensor:
    """Return `values` in the layer's precision, at least float32: enough for weights that are stored in it again."""
    return values(tensor, place).to(torch.promote_types(tensor.dtype, torch.float32))


def shapes(tensor: Tensor, place: str) -> Tensor:
    """Return a tensor of the same shape on the meta device."""
    return torch.empty(tensor.shape, dtype=torch.float64, device="meta")


def itself(tensor: Tensor, place: str) -> Tensor:
    """Return a layer's tensor itself, so that gradients flow back into it."""
    return tensor


def read(module: Any, place: str, numbers: Callable[[Tensor, str], Tensor] = values) -> Filter:
    """Return a `LinearLayer` as a filter, with its tensors converted by `numbers`; `place` is for messages."""
    weight = numbers(module.weight, f"{place}.weight")
    bias = None if module.bias is None else numbers(module.bias, f"{place}.bias")
    if isinstance(module, nn.Linear):
        return Filter(weight=weight[None], bias=bias)
    weight = weight.reshape(module.groups, -1, *weight.shape[1:])
    transposed = isinstance(module, TransposedConv)
    return Filter(
        weight=weight.transpose(1, 2) if transposed else weight,
        bias=bias,
        transposed=transposed,
        stride=tuple(module.stride),
        dilation=tuple(module.dilation),
        padding=_padding(module),
        output_padding=tuple(module.output_padding),
        mode=module.padding_mode,
    )


def _padding(module: Any) -> tuple[tuple[int, int], ...]:
    if module.padding == "valid":
        return ((0, 0),) * len(module.kernel_size)
    if module.padding == "same":
        return _same(module.kernel_size, module.dilation)
    return tuple((size, size) for size in module.padding)


def _same(kernel: Sequence[int], dilation: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Return the padding that torch calls "same"; an odd one is larger behind."""
    totals = [step * (size - 1) for size, step in zip(kernel, dilation, strict=True)]
    return tuple((total // 2, total - total // 2) for total in totals)


def padding_of(pad: Any) -> tuple[tuple[tuple[int, int], ...], str]:
    """Return the padding of a module of `PADS`, a pair per dimension, and its mode."""
    mode = next(mode for mode, kinds in _PADS.items() if isinstance(pad, kinds))
    pairs = list(zip(pad.padding[::2], pad.padding[1::2], strict=True))  # torch counts from the last dimension
    return tuple(reversed(pairs)), mode


def write(part: Filter) -> list[nn.Module]:
    """Return the layer that computes `part`, on the meta device, without its weights.

    Padding that a torch layer does not support (more behind than before) becomes a module before it.
    """
    if not part.kernel:
        return [nn.Linear(*part.channels, bias=part.bias is not None, device="meta")]
    settings: dict[str, Any] = {
        "kernel_size": part.kernel,
        "stride": part.stride,
        "dilation": part.dilation,
        "groups": part.groups,
        "bias": part.bias is not None,
        "padding_mode": part.mode,
        "device": "meta",
    }
    before, after = (tuple(pair[side] for pair in part.padding) for side in (0, 1))
    rank = len(part.kernel) - 1
    if part.transposed:
        layer = members(TransposedConv)[rank]
        return [layer(*part.channels, padding=before, output_padding=part.output_padding, **settings)]
    layer = members(Conv)[rank]
    if before == after:
        return [layer(*part.channels, padding=before, **settings)]
    if set(part.stride) == {1} and part.padding == _same(part.kernel, part.dilation):
        return [layer(*part.channels, padding="same", **settings)]
    pads: Any = _PADS[part.mode]
    amounts = tuple(size for pair in reversed(part.padding) for size in pair)
    return [pads[rank](amounts), layer(*part.channels, padding=0, **settings)]


def computed(part: Filter, images: Tensor) -> Tensor:
    """Return the output of `part` for `images`; gradients flow into its weight and bias."""
    if not part.kernel:
        return functional.linear(images, stored(part), part.bias)
    rank, common = len(part.kernel) - 1, {"stride": part.stride, "dilation": part.dilation, "groups": part.groups}
    before, after = (tuple(pair[side] for pair in part.padding) for side in (0, 1))
    if part.transposed:
        spread: Any = (functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d)[rank]
        settings = {**common, "padding": before, "output_padding": part.output_padding}
        return spread(images, stored(part), part.bias, **settings)  # type: ignore[no-any-return]
    if before != after or part.mode != "zeros":
        amounts = [size for pair in reversed(part.padding) for size in pair]
        images = functional.pad(images, amounts, mode="constant" if part.mode == "zeros" else part.mode)
        before = (0,) * len(before)
    convolve: Any = (functional.conv1d, functional.conv2d, functional.conv3d)[rank]
    return convolve(images, stored(part), part.bias, padding=before, **common)  # type: ignore[no-any-return]


def stored(part: Filter) -> Tensor:
    """Return the weight of `part` in the torch layer's layout."""
    weight = part.weight.transpose(1, 2) if part.transposed else part.weight
    return weight.flatten(0, 1)


def split_blocks(weight: Tensor, groups: int) -> Tensor:
    """Return a grouped weight as one with fewer groups, with zeros between the former groups."""
    blocks = weight.shape[0] // groups
    if blocks == 1:
        return weight
    outer, inner = weight.shape[1:3]
    given = weight.reshape(groups, blocks, *weight.shape[1:])
    result = given.new_zeros(groups, blocks, outer, blocks, inner, *weight.shape[3:])
    for block in range(blocks):
        result[:, block, :, block] = given[:, block]
    return result.reshape(groups, blocks * outer, blocks * inner, *weight.shape[3:])


def taps(kernel: Sequence[int]) -> int:
    """Return the number of positions of a kernel."""
    return math.prod(kernel)
