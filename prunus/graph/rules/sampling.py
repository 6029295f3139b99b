"""Operators that work on positions: padding, pooling, interpolation."""

import re

import torch

from prunus.graph.call import Call
from prunus.graph.labels import Axis, Label, Labels
from prunus.graph.rules.table import rule


@rule("pad", "constant_pad_nd", "reflection_pad1d", "reflection_pad2d", "replication_pad2d")
def pad(call: Call) -> Label:
    """Padding of positions keeps the channels; padding of channels puts new channels beside them."""
    value, amounts, fill = call.input, call.get("pad") or call["padding"], call.get("value")
    rank = len(value.shape)
    padded = {rank - 1 - i // 2: (amounts[i], amounts[i + 1]) for i in range(0, len(amounts), 2)}
    constant = "value" in call.arguments and call.get("mode", "constant") == "constant"
    axes = {}
    for dim, axis in value.axes.items():
        ids, source = axis.ids, axis.source
        if constant and fill and any(any(amount) for other, amount in padded.items() if other != dim):
            source = torch.where(source == 0, call.number, source)
        before, after = padded.get(dim, (0, 0))
        if (before or after) and not constant:
            call.freeze(axis, f"{call.name} repeats channels beside them")
        if before < 0 or after < 0:
            call.freeze(axis, f"{call.name} cuts channels off at fixed places")
        if before or after:
            ids, source = (torch.nn.functional.pad(each, (min(before, 0), min(after, 0))) for each in (ids, source))
            ends = [call.zeros(number, max(size, 0)) for number, size in enumerate((before, after))]
            ends = [call.changed(end) if fill else end for end in ends]
            ids = torch.cat([ends[0].ids, ids, ends[1].ids])
            source = torch.cat([ends[0].source, source, ends[1].source])
        axes[dim] = Axis(ids, source)
    return Label(call.shapes[0], axes)


@rule("fft_fft", "fft_ifft", "fft_rfft", "fft_irfft", "fft_hfft", "fft_ihfft", "fft_fft2", "fft_ifft2", "fft_rfft2")
@rule("fft_irfft2", "fft_fftn", "fft_ifftn", "fft_rfftn", "fft_irfftn", "fft_fftshift", "fft_ifftshift")
def fourier(call: Call) -> Label:
    """A transform of positions, linear in each channel; along channels it would mix them, and is refused."""
    rank, dims, sizes = len(call.input.shape), call["dim"], call.get("s")
    if dims is None:
        dims = range(-len(sizes) if sizes else -rank, 0)
    touched = {dim % rank for dim in (dims if not isinstance(dims, int) else [dims])}
    for dim in touched & call.input.axes.keys():
        call.freeze(call.input.axes[dim], f"{call.name} along the channels")
    return Label(call.shapes[0], {dim: axis for dim, axis in call.input.axes.items() if dim not in touched})


@rule("view_as_complex", "view_as_real", "real", "imag", "conj", "_conj", "resolve_conj")
def complex_parts(call: Call) -> Label:
    """Complex numbers and their two parts, which lie along a last dimension of their own."""
    shape = call.shapes[0]
    for dim in call.input.axes.keys() - set(range(len(shape))):
        call.freeze(call.input.axes[dim], "they are the parts of a complex number")
    return Label(shape, {dim: axis for dim, axis in call.input.axes.items() if dim < len(shape)})


@rule("max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d", "max_pool2d_with_indices")
@rule("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool1d", "adaptive_max_pool2d")
@rule("upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "upsample_bilinear2d", "upsample_bicubic2d")
@rule("upsample_linear1d", "upsample_trilinear3d", "_upsample_nearest_exact2d", "_upsample_bicubic2d_aa")
@rule("_upsample_bilinear2d_aa", "grid_sampler", "grid_sampler_2d", "grid_sampler_3d", "max_unpool2d", "max_unpool3d")
@rule(
    "max_pool1d_with_indices",
    "max_pool3d_with_indices",
    "adaptive_max_pool3d",
    "_upsample_nearest_exact1d",
    "_upsample_nearest_exact3d",
)
def resample(call: Call) -> Labels:
    """Pool or interpolate the positions of each channel independently; zeros stay zero.

    Unpooling reads the positions of each channel: their channels are those of the input.
    """
    value, grid = call.input, call.get("grid")
    for axis in grid.axes.values() if grid is not None else ():
        call.freeze(axis, "they are places on a grid")
    dimensions = re.search(r"(\d)d", call.name)
    kept = value.before(int(dimensions[1]) if dimensions else len(value.shape) - 2)
    for axis in (value.axes[dim] for dim in value.axes.keys() - kept.keys()):
        call.freeze(axis, "channels lie along a dimension that is resampled")
    indices = call.get("indices")
    for dim in sorted(kept.keys() | indices.axes.keys()) if indices is not None else ():
        call.join(kept.get(dim), indices.axes.get(dim))
    places = {dim: call.changed(axis) for dim, axis in kept.items()}  # positions, as a second output
    return call.results(kept, places)
