"""Taylor importance of channel groups, from the gradients of a batch."""

import torch
from torch import Tensor

from prunus.penalties.slices import GroupSlices


def taylor(slices: GroupSlices) -> Tensor:
    """Return (sum over theta in g of theta * dL/dtheta)^2 for each group, [num_groups], from the present gradients.

    This is, to first order, the squared change of this batch's loss if the group were zero (Molchanov et al., CVPR
    2019, eq. 8, over all coupled parameters). Average it over batches.
    """

    def product(parameter: Tensor) -> Tensor:
        if parameter.grad is None:
            return torch.zeros(parameter.shape, device=parameter.device)
        product = parameter.detach() * parameter.grad.conj()
        return product.real if product.is_complex() else product

    with torch.no_grad():
        return slices.sums(product).square()
