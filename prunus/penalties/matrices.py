"""The weights of layers as matrices, one row per output unit, processed in batches of equal shape."""

import dataclasses
import difflib
import fnmatch
from collections import defaultdict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from prunus.errors import RecipeError
from prunus.modules.kinds import LinearLayer, TransposedConv


@dataclasses.dataclass(frozen=True, eq=False)
class MatrixWeight:
    """One layer's weight: the layer's path, the weight, its number of groups, and whether it is transposed."""

    path: str
    weight: Tensor
    num_groups: int
    transposed: bool

    def view(self, tensor: Tensor) -> Tensor:
        """Return a tensor of the weight's shape as [groups, out / groups, in / groups * kernel], a view if possible."""
        return self._blocks(tensor).flatten(2)

    def set_(self, matrices: Tensor) -> None:
        """Write matrices, in the shape that `view` returns, into the weight."""
        blocks = self._blocks(self.weight)
        blocks.copy_(matrices.reshape(blocks.shape))

    def _blocks(self, tensor: Tensor) -> Tensor:
        """View `tensor` as [groups, out / groups, in / groups, kernel...]; a transposed weight is [in, out]."""
        blocks = tensor.view(self.num_groups, -1, *tensor.shape[1:])
        return blocks.transpose(1, 2) if self.transposed else blocks


def matrix_weights(model: nn.Module, patterns: str | Sequence[str] | None = None) -> list[MatrixWeight]:
    """Return the weights of the model's convolutions and linear layers, in module order, each shared one once.

    Weights whose matrices have a single row or column (a depthwise convolution) are left out, since their nuclear norm
    is their Euclidean norm, and so are weights computed anew in each step (a parametrisation such as weight norm).

    Args:
        model: the network.
        patterns: globs over the paths of layers; None: all.

    Raises:
        RecipeError: a pattern matches no layer, or none whose weight is a parameter.
    """
    found: dict[int, MatrixWeight] = {}
    computed: list[str] = []
    for path, module in model.named_modules():
        if not isinstance(module, LinearLayer):
            continue
        if not isinstance(module.weight, nn.Parameter):
            computed.append(path)
            continue
        layer = MatrixWeight(path, module.weight, getattr(module, "groups", 1), isinstance(module, TransposedConv))
        if min(layer.view(layer.weight).shape[1:]) > 1:
            found.setdefault(id(module.weight), layer)
    layers = list(found.values())
    patterns = (patterns,) if isinstance(patterns, str) else patterns
    for pattern in patterns or ("*",):
        if not fnmatch.filter([layer.path for layer in layers], pattern):
            raise RecipeError(_unmatched(pattern, [layer.path for layer in layers], fnmatch.filter(computed, pattern)))
    if patterns is None:
        return layers
    return [layer for layer in layers if any(fnmatch.fnmatchcase(layer.path, pattern) for pattern in patterns)]


def _unmatched(pattern: str, paths: list[str], computed: list[str]) -> str:
    if computed:
        return (
            f"layers: {pattern!r} matches {computed[0]}, whose weight is recomputed from others in each step, so that "
            "a step on it would be lost: remove the parametrisation (weight norm, spectral norm) first"
        )
    near = ", ".join(difflib.get_close_matches(pattern, paths, n=5, cutoff=0.5) or [*paths[:5], "..."])
    return f"layers: {pattern!r} matches no convolution or linear layer" + (f"; available: {near}" if paths else "")


@torch.no_grad()
def replace_(layers: list[MatrixWeight], keys: list[float], function: Callable[[Tensor, float], Tensor]) -> None:
    """Replace each layer's matrices M by `function(M, key)`; matrices of the same shape and key form one batch.

    A row of zeros (a removed unit) stays exactly zero, free of rounding and of the effect of other rows.
    """
    batches: dict[tuple[object, ...], list[MatrixWeight]] = defaultdict(list)
    sizes: dict[tuple[object, ...], float] = {}
    for layer, key in zip(layers, keys, strict=True):
        bucket = (*layer.view(layer.weight).shape[1:], layer.weight.dtype, layer.weight.device, key)
        batches[bucket].append(layer)
        sizes[bucket] = key
    for bucket, members in batches.items():
        stacked = torch.cat([layer.view(layer.weight) for layer in members])
        alive = (stacked.amax(-1) != 0) | (stacked.amin(-1) != 0)  # much faster than `any`
        result = function(stacked, sizes[bucket])
        if not bool(alive.all()):
            result[~alive] = 0
        parts = torch.split(result, [layer.num_groups for layer in members])
        for layer, part in zip(members, parts, strict=True):
            layer.set_(part)
