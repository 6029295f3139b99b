"""What the tracer keeps of constants."""

import pytest
import torch
from torch import nn

import prunus
from prunus.graph.export import export
from prunus.graph.findings import Findings
from prunus.graph.labels import Label
from prunus.graph.walk import walk


def test_an_empty_table_of_positions_is_even():
    label = Label((0, 3), data=torch.zeros(0, 3, dtype=torch.long))
    assert label.uniform(0) and label.uniform(1)
    assert not Label((2, 3)).uniform(0)


def test_of_a_large_constant_that_nobody_reads_any_more_it_is_known_where_it_is_uniform():
    rows = torch.arange(200).view(200, 1, 1).expand(200, 1, 100).contiguous()
    label = Label.constant(rows)
    assert torch.equal(label.data, rows) and label.data.untyped_storage().nbytes() == 200 * rows.itemsize
    spent = label.spent()
    assert spent.data.is_meta and spent.spent() is spent
    assert [spent.uniform(dim) for dim in range(3)] == [False, True, True]
    small = Label((2, 3), data=torch.zeros(2, 3))
    assert small.spent() is small and Label((2, 3)).spent().data is None


class Masked(nn.Module):
    """Large constants, each made of the one before, as windows with masks compute them."""

    def forward(self, x):
        positions = torch.arange(x.shape[-1])
        mask = positions[:, None] - positions
        for _ in range(20):
            mask = mask + 1
        return x @ mask.to(x.dtype)


def test_constants_do_not_pile_up():
    program = export(Masked(), (torch.randn(1, 500),), None, training=False)
    labels = walk(program, Masked(), Findings(), {}).values()
    constants = [label.data for label in labels if isinstance(label, Label) and label.data is not None]
    assert sum(data.numel() == 250_000 for data in constants) > 20
    assert sum(data.nbytes for data in constants if not data.is_meta) < 250_000


class Shifted(nn.Module):
    """Adds a constant made like the mask of a window: alike everywhere, of many values, seen in other shapes."""

    def __init__(self, value):
        super().__init__()
        self.value, self.first, self.last = value, nn.Linear(4, 64), nn.Linear(64, 4)

    def forward(self, x):
        y = self.first(x)
        rows = torch.zeros(y.shape[-1], 1) + torch.full((1, 300), self.value)
        rows = rows.view(1, -1, 300).masked_fill(rows.unsqueeze(0) > 1, 0.0)
        return self.last(y + rows.transpose(1, 2))


@pytest.mark.parametrize("value", [0.0, 1.0, 2.0])
def test_a_large_constant_is_zero_or_it_is_not(value):
    groups = prunus.trace(Shifted(value), (torch.randn(1, 300, 4),))
    assert int(groups.exact.sum()) == (0 if value == 1 else 64)


class Strided(nn.Module):
    """Adds the second row of a constant, all ones, which it reads from memory as it lies."""

    def forward(self, x):
        rows = (torch.arange(300)[:, None] == 1).float() + torch.zeros(1, 64)
        return x + rows.as_strided((300, 64), (0, 1), 64)


def test_memory_that_is_read_as_it_lies_is_not_guessed():
    program = export(Strided(), (torch.randn(1, 300, 64),), None, training=False)
    labels = walk(program, Strided(), Findings(), {})
    assert [label.data for node, label in labels.items() if "as_strided" in node.name] == [None]
