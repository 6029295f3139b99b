"""Einstein sums: what is contracted, what goes along, what it costs."""

import pytest
import torch
from idioms import Call, check, images
from torch import nn


def gram(x):
    """[N, C, H, W] -> [N, 1, C, C] would fix C; its trace over positions does not."""
    return torch.einsum("nchw,ncij->nhw", x, x).unsqueeze(1)


class Projected(nn.Module):
    """Linear layers between pixels, spelled as Einstein sums."""

    def __init__(self, equation):
        super().__init__()
        self.equation, self.weight = equation, nn.Parameter(torch.zeros(6, 8))

    def forward(self, x):
        return torch.einsum(self.equation, x, self.weight)


class Heads(nn.Module):
    """Attention in Einstein sums, two heads of four channels."""

    def __init__(self):
        super().__init__()
        self.heads, self.size = 2, 4

    def forward(self, x):
        y = x.flatten(2).unflatten(1, (self.heads, self.size))
        attention = torch.einsum("nhcq,nhck->nhqk", y, y).softmax(-1)
        return torch.einsum("nhqk,nhck->nhcq", attention, y).flatten(1, 2).unflatten(2, x.shape[2:])


@pytest.mark.parametrize("equation", ["nchw,dc->ndhw", "n c h w, d c -> n d h w"])
def test_a_linear_layer(equation):
    model = nn.Sequential(nn.Conv2d(3, 8, 1), Projected(equation), nn.ReLU(), nn.Conv2d(6, 2, 1))
    groups = check(model, images(), exact=8 + 6)
    assert groups.macs() == 2 * 64 * (3 * 8 + 8 * 6 + 6 * 2)


@pytest.mark.parametrize(
    ("function", "inner", "exact"),
    [
        (lambda x: torch.einsum("nchw,nchw->nhw", x, x).unsqueeze(1) * x, 8, 8),
        (lambda x: torch.einsum("...hw,...hw->...h", x, x).unsqueeze(-1), 8, 8),
        (lambda x: torch.einsum("nchw,c", x, x.sum((0, 2, 3))).unsqueeze(1), 1, 8),
        (gram, 1, 8),
        (lambda x: torch.einsum("nchw,nchw->nhw", x.sigmoid(), x).unsqueeze(1), 1, 8),
        (lambda x: torch.einsum("nchw,nchw->nhw", x.sigmoid(), x.exp()).unsqueeze(1), 1, 0),
        (lambda x: torch.einsum("ncii->nci", x).unsqueeze(-1), 8, 0),
        (lambda x: torch.einsum("nchw,ndhw->ncd", x, x.exp()).diagonal(dim1=1, dim2=2)[..., None, None] * x, 8, 0),
        (lambda x: x.diagonal(dim1=2, dim2=3).unsqueeze(-1) * x, 8, 8),
    ],
    ids=[
        "energy",
        "ellipsis",
        "implicit",
        "two_sums",
        "a_zero_factor",
        "no_zero_factor",
        "diagonal",
        "diagonal_of_channels",
        "diagonal_of_positions",
    ],
)
def test_a_product_is_zero_where_a_factor_is(function, inner, exact):
    check(Call(function, nn.Conv2d(3, 8, 1), nn.Conv2d(inner, 2, 1)), images(), exact=exact)


@pytest.mark.parametrize(("whole_heads", "exact"), [(False, 4), (True, 2)])
def test_attention(whole_heads, exact):
    model = nn.Sequential(nn.Conv2d(3, 8, 1), Heads(), nn.Conv2d(8, 2, 1))
    check(model, images(), exact=exact, whole_heads=whole_heads)


class Experts(nn.Module):
    """A soft mixture of three linear layers; what weighs an expert is not zero where its logits are."""

    def __init__(self, gate, equation):
        super().__init__()
        self.gate, self.equation = gate, equation
        self.router, self.weight = nn.Linear(3, 3), nn.Parameter(torch.zeros(3, 2, 3))

    def forward(self, x):
        tokens = x.mean((2, 3))
        weight = torch.einsum(self.equation, self.gate(self.router(tokens)), self.weight)
        return torch.einsum("noi,ni->no", weight, tokens)


@pytest.mark.parametrize("gate", [torch.sigmoid, torch.relu, lambda logits: logits + 1])
@pytest.mark.parametrize("equation", ["nk,koi->noi", "nk,k...->n..."])
def test_a_weight_that_is_read_by_what_is_not_zero_must_be_zero_itself(gate, equation):
    check(Experts(gate, equation), images(), exact=3)
