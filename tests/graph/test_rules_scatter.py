"""Rows put into another tensor, at positions that are fixed or that the data decide: their channels stay channels."""

import pytest
import torch
from idioms import check, reasons, tokens
from torch import nn

ROWS = torch.tensor([0, 2, 1, 2, 0])


class Pooled(nn.Module):
    """A layer whose rows are put somewhere by a function, before the next layer reads them."""

    def __init__(self, function):
        super().__init__()
        self.first, self.last, self.function = nn.Linear(12, 8), nn.Linear(8, 2), function

    def forward(self, x):
        return self.last(self.function(self.first(x)[0]))


def canvas(x):
    y = torch.zeros(x.shape[1], 9, dtype=x.dtype)
    y[:, ROWS * 2] = x.T
    return y.T


def zeros(x, rows=3):
    return x.new_zeros(rows, x.shape[1])


@pytest.mark.parametrize(
    ("function", "exact"),
    [
        (lambda x: zeros(x).index_add(0, ROWS, x), 8),
        (lambda x: zeros(x).index_add_(0, ROWS, x), 8),
        (lambda x: x.exp().index_add(0, ROWS, x), 0),
        (lambda x: zeros(x).add(1).index_add(0, ROWS, x), 0),
        (lambda x: zeros(x, 5).index_copy(0, ROWS.argsort(), x), 8),
        (lambda x: zeros(x).index_put((ROWS,), x, accumulate=True), 8),
        (lambda x: zeros(x).scatter_add(0, ROWS[:, None].expand(-1, x.shape[1]), x), 8),
        (lambda x: zeros(x, 5).index_add(0, x.sum(1).argsort(), x), 8),
        (lambda x: torch.zeros(3, 8, dtype=x.dtype).index_add(0, ROWS, x), 0),
        (lambda x: x.new_zeros(5, x.shape[1]).index_add(1, torch.arange(8), x), 0),
        (canvas, 8),
    ],
    ids=["add", "in_place", "onto", "onto_ones", "copy", "put", "scatter", "by_data", "fixed", "channels", "canvas"],
)
def test_rows_are_put_where_an_index_says(function, exact):
    check(Pooled(function), tokens(), exact=exact)


def test_the_reason_names_the_operator():
    groups = check(Pooled(lambda x: x.new_zeros(5, x.shape[1]).index_add(1, torch.arange(8), x)), tokens(), exact=0)
    assert "aten::index_add puts rows at positions along it" in reasons(groups)
