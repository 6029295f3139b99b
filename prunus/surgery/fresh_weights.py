"""Fresh weights in torch's distribution, from a seed and a path; no global random state is touched."""

import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor


def generator(seed: int, path: str) -> torch.Generator:
    """Return the random generator of one layer: the same for the same seed and path, different for other layers."""
    digest = hashlib.sha256(f"{seed} {path}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def fresh_weight(shape: Sequence[int], numbers: torch.Generator, *, like: Tensor) -> Tensor:
    """Return a weight [groups, out / groups, in / groups, *kernel], uniform within 1 / sqrt(fan in).

    This is torch's own initialisation (He et al. 2015 with a = sqrt 5), in float32; on the meta device if `like` is.
    """
    return _uniform(shape, math.prod(shape[2:]), numbers, like)


def fresh_bias(weight: Tensor, numbers: torch.Generator) -> Tensor:
    """Return a bias [out] for a weight, uniform within 1 / sqrt(fan in)."""
    groups, outer, *rest = weight.shape
    return _uniform((groups * outer,), math.prod(rest), numbers, weight)


def _uniform(shape: Sequence[int], fan_in: int, numbers: torch.Generator, like: Tensor) -> Tensor:
    if like.is_meta:
        return torch.empty(tuple(shape), device="meta")
    bound = 1 / math.sqrt(fan_in)
    return torch.empty(tuple(shape), device="cpu").uniform_(-bound, bound, generator=numbers)
