"""Singular value thresholding of many matrices, in batches."""

import warnings

import torch
from torch import Tensor
from torch.linalg import LinAlgError  # type: ignore[attr-defined]  # public, though not in its stub

from prunus.errors import TrainingError

NUM_BLOCKS = 4  # of a Gram matrix: three eighths of its products are not computed
SMALL = 0.1  # relative: the root of the square of a smaller value has lost two digits


class DecompositionWarning(UserWarning):
    """A decomposition did not converge, and a fallback was used."""


@torch.no_grad()
def singular_value_threshold(matrices: Tensor, threshold: float) -> Tensor:
    """Return prox of threshold * ||.||_*: U max(0, Sigma - threshold) V^T, matrices [..., m, n] (Cai et al. 2010).

    For m <= n it is W - H W, H = U min(1, threshold / Sigma) U^T, where U are the eigenvectors of W W^T: several
    times cheaper than a singular value decomposition. For m > n it works on W^T. Sigma are the roots of the
    eigenvalues, which lose digits where they are small; those below a tenth of the largest are the norms
    of U^T W instead. The error is of the order of rounding, times the largest singular value; below some 3e-4
    of that, in float32, singular directions of nearly equal size are not separated.

    Raises:
        TrainingError: the matrices are not finite.
    """
    working = matrices if matrices.dtype in (torch.float32, torch.float64) else matrices.float()
    working = working.reshape(-1, *matrices.shape[-2:])
    lies = working.shape[1] <= working.shape[2]
    found = _left_vectors(working if lies else working.mT)
    if found is None:
        return matrices
    vectors, values = found
    shares = torch.where(values > threshold, threshold / values, 1.0)
    taken = (vectors * shares[:, None]) @ vectors.mT
    first, second = (taken, working) if lies else (working, taken)  # H is symmetric: (H W^T)^T = W H
    kept = torch.baddbmm(working, first, second, alpha=-1)
    gone = (shares == 1).all(-1)  # set to exactly zero, not zero up to rounding
    if bool(gone.any()):
        kept[gone] = 0.0
    return kept.reshape(matrices.shape).to(matrices.dtype)


def _left_vectors(matrices: Tensor) -> tuple[Tensor, Tensor] | None:
    """Return left singular vectors [b, m, m] and singular values [b, m] of matrices [b, m, n], m <= n.

    Warn and return None where nothing converges.

    Raises:
        TrainingError: the matrices are not finite.
    """
    for working in dict.fromkeys((matrices.dtype, torch.float64)):  # single precision fails where many values are zero
        try:
            squares, vectors = (each.to(matrices) for each in torch.linalg.eigh(_gram(matrices.to(working))))
            if bool(vectors.sum().isfinite()):  # finite exactly if all entries are: none exceeds 1
                return vectors, _values(matrices, squares, vectors)
            reason = "its eigenvectors are not finite"
        except LinAlgError as error:
            reason = str(error)
    _warn(matrices, f"the Gram matrix could not be decomposed ({reason}): its singular values were taken directly")
    try:
        left, values, _ = torch.linalg.svd(matrices.double(), full_matrices=False)
        if bool(left.isfinite().all()):
            return left.to(matrices.dtype), values.to(matrices.dtype)
        reason = "the vectors are not finite"
    except LinAlgError as error:
        reason = str(error)
    _warn(matrices, f"no singular values were found ({reason}): the weights stay as they are in this step")
    return None


def _gram(matrices: Tensor) -> Tensor:
    """Return W W^T [b, m, m], in blocks of rows up to the diagonal: `eigh` reads nothing beyond it."""
    rows = matrices.shape[1]
    gram = matrices.new_zeros(matrices.shape[0], rows, rows)
    for start in range(0, rows, -(-rows // NUM_BLOCKS)):
        stop = min(rows, start - (-rows // NUM_BLOCKS))
        gram[:, start:stop, :stop] = matrices[:, start:stop] @ matrices[:, :stop].mT
    finite = gram.diagonal(dim1=-2, dim2=-1).isfinite().all()  # finite if the squares of the rows are
    if not bool(finite) and not bool(matrices.isfinite().all()):
        raise TrainingError(
            "the nuclear norm's proximal step met weights that are not finite: the training diverged before it; "
            "lower the learning rate"
        )
    return gram


def _values(matrices: Tensor, squares: Tensor, vectors: Tensor) -> Tensor:
    """Return the singular values, given their squares, ascending and accurate up to rounding of the largest."""
    values = squares.clamp(min=0).sqrt()
    num_small = int((values < SMALL * values[:, -1:]).sum(-1).max())
    values[:, :num_small] = (vectors[..., :num_small].mT @ matrices).norm(dim=-1)
    return values


def _warn(matrices: Tensor, text: str) -> None:
    warnings.warn(f"matrices {list(matrices.shape)}: {text}", DecompositionWarning, stacklevel=5)
