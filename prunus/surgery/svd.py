"""Low-rank factors of matrices in float64, never NaN: if the SVD fails, another method is used, with a warning."""

import warnings

import torch
from torch import Tensor

from prunus.errors import EditError


def balanced_factors(matrices: Tensor, rank: int, place: str) -> tuple[Tensor, Tensor]:
    """Return (left, right) of the best approximation of a rank: left = U sqrt(S), right = sqrt(S) V^T.

    Both factors have the same scale, so that neither trains faster than the other.

    Args:
        matrices: [groups, rows, columns]; on the meta device the factors have no values.
        rank: at least 1; at min(rows, columns) left @ right equals `matrices` up to rounding.
        place: for messages.

    Returns:
        [groups, rows, rank], [groups, rank, columns].
    """
    if matrices.is_meta:
        groups, rows, columns = matrices.shape
        return matrices.new_empty(groups, rows, rank), matrices.new_empty(groups, rank, columns)
    scaled_left, sigma, right = decomposed(matrices, place)
    limits = torch.finfo(sigma.dtype)
    # A singular value below the rounding of the largest is noise, which the inverse of its square root would amplify.
    root = sigma.maximum(sigma[:, :1] * limits.eps).clamp(min=limits.tiny).sqrt()
    return (scaled_left / root[:, None])[..., :rank], (root[..., None] * right)[:, :rank]


def rank_of_energy(matrices: Tensor, energy: float, place: str) -> int:
    """Return the smallest rank r with (sigma_1 + ... + sigma_r) / (sum of all) >= energy, in every group.

    The share is that of sigma, not of its square (Alvarez & Salzmann, NIPS 2017).
    """
    _, sigma, _ = decomposed(matrices, place)
    share = sigma.cumsum(1) / sigma.sum(1, keepdim=True).clamp(min=torch.finfo(sigma.dtype).tiny)
    # Rounding must not add a rank that contributes nothing.
    enough = share >= energy * (1 - 1e-12)
    enough[:, -1] = True
    enough |= sigma.sum(1, keepdim=True) == 0
    return int(enough.int().argmax(1).max()) + 1


def decomposed(matrices: Tensor, place: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return (U S, S, V^T) of float64 matrices [groups, rows, columns], singular values in descending order.

    If the singular value decomposition does not converge, it is computed from the eigenvectors of the smaller Gram
    matrix, with a warning: small singular values are then less accurate, but not the product.

    Raises:
        EditError: the second method fails too.
    """
    try:
        left, sigma, right = torch.linalg.svd(matrices, full_matrices=False)
        result = left * sigma[:, None], sigma, right
        if _finite(result):
            return result
        reason = "it gave values that are not finite"
    except RuntimeError as error:  # torch.linalg.LinAlgError, or the library's own
        reason = str(error).splitlines()[0]
    warnings.warn(
        f"{place}: the singular value decomposition did not converge ({reason}); used the eigenvectors of the Gram "
        "matrix instead",
        stacklevel=2,
    )
    try:
        result = _through_gram(matrices)
    except RuntimeError as error:
        raise EditError(f"{place}: its weight has no singular value decomposition: {error}") from error
    if not _finite(result):
        raise EditError(f"{place}: its weight has no singular value decomposition: values are not finite")
    return result


def _through_gram(matrices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return `decomposed` by A = (A V) V^T, exact up to rounding for any orthonormal V: here eigenvectors of A^T A."""
    scale = matrices.abs().amax((1, 2), keepdim=True).clamp(min=torch.finfo(matrices.dtype).tiny)
    unit = matrices / scale  # its square neither overflows nor vanishes
    if unit.shape[1] >= unit.shape[2]:
        vectors = torch.linalg.eigh(unit.mT @ unit)[1].flip(-1)
        left, right = unit @ vectors, vectors.mT
        return left * scale, torch.linalg.vector_norm(left, dim=1) * scale[..., 0], right
    vectors = torch.linalg.eigh(unit @ unit.mT)[1].flip(-1)
    right = vectors.mT @ unit
    sigma = torch.linalg.vector_norm(right, dim=2)
    limits = torch.finfo(sigma.dtype)
    right = right / sigma.maximum(sigma[:, :1] * limits.eps).clamp(min=limits.tiny)[..., None]
    return vectors * sigma[:, None] * scale, sigma * scale[..., 0], right


def _finite(tensors: tuple[Tensor, ...]) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in tensors)
