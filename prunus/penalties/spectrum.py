"""Singular values of many matrices: thresholding, a batch at a time."""

import warnings

import torch
from torch import Tensor
from torch.linalg import LinAlgError  # type: ignore[attr-defined]  # public, though not in its stub

from prunus.errors import TrainingError


class DecompositionWarning(UserWarning):
    """A decomposition did not converge, and another way was taken."""


def singular_value_threshold(matrices: Tensor, threshold: float) -> Tensor:
    """prox of threshold * ||.||_*: U max(0, Sigma - threshold) V^T, for matrices [..., m, n] (Cai et al. 2010).

    U are the eigenvectors of the smaller Gram matrix, several times cheaper than a singular value decomposition.
    Sigma is not taken from its eigenvalues, which lose half of the digits, but as the norms of Y = U^T W; the
    result is W - U min(1, threshold / Sigma) Y. Its error is of the order of rounding, times the largest singular
    value; below some 3e-4 of that, in float32, singular directions of nearly equal size are not told apart.

    Raises:
        TrainingError: the matrices are not finite.
    """
    if not bool(matrices.isfinite().all()):
        raise TrainingError(
            "the nuclear norm's proximal step met weights that are not finite: the training diverged before it; "
            "lower the learning rate"
        )
    if matrices.shape[-2] > matrices.shape[-1]:
        return singular_value_threshold(matrices.mT, threshold).mT
    working = matrices if matrices.dtype in (torch.float32, torch.float64) else matrices.float()
    left = _left_vectors(working)
    if left is None:
        return matrices
    turned = left.mT @ working
    values = turned.norm(dim=-1, keepdim=True)
    shares = torch.where(values > threshold, threshold / values, 1.0)
    taken = left @ turned.mul_(shares)
    gone = (shares == 1).all(-2, keepdim=True)  # exactly zero then, not zero up to rounding
    return torch.sub(working, taken, out=taken).masked_fill_(gone, 0.0).to(matrices.dtype)


def _left_vectors(matrices: Tensor) -> Tensor | None:
    """Left singular vectors [..., m, m] of matrices [..., m, n], m <= n; None if nothing converges, which is said."""
    try:
        vectors: Tensor = torch.linalg.eigh(matrices @ matrices.mT).eigenvectors
        if bool(vectors.isfinite().all()):
            return vectors
        reason = "its eigenvectors are not finite"
    except LinAlgError as error:
        reason = str(error)
    _warn(matrices, f"the Gram matrix could not be decomposed ({reason}): its singular values were taken directly")
    try:
        vectors = torch.linalg.svd(matrices.double(), full_matrices=False).U.to(matrices.dtype)
        if bool(vectors.isfinite().all()):
            return vectors
        reason = "the vectors are not finite"
    except LinAlgError as error:
        reason = str(error)
    _warn(matrices, f"no singular values were found ({reason}): the weights stay as they are in this step")
    return None


def _warn(matrices: Tensor, text: str) -> None:
    warnings.warn(f"matrices {list(matrices.shape)}: {text}", DecompositionWarning, stacklevel=4)
