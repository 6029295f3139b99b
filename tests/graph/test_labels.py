"""What the tracer keeps of constants."""

import pytest
import torch
from torch import nn

import prunus
from prunus.graph.labels import Label
from prunus.modules.strides import compact
from prunus.program import read


def test_an_empty_table_of_positions_is_even():
    label = Label((0, 3), data=torch.zeros(0, 3, dtype=torch.long))
    assert label.uniform(0) and label.uniform(1)
    assert not Label((2, 3)).uniform(0)


def test_a_large_constant_is_held_once_along_each_dimension_in_which_it_does_not_change():
    rows = torch.arange(200).view(200, 1, 1).expand(200, 1, 100).contiguous()
    held = compact(rows, known := [])
    assert torch.equal(held, rows) and held.untyped_storage().nbytes() == 200 * rows.itemsize
    assert [Label.constant(held).uniform(dim) for dim in range(3)] == [False, True, True]
    assert compact(rows.clone(), known).data_ptr() == held.data_ptr() and len(known) == 1  # kept once
    assert compact(small := torch.zeros(2, 3), known).data_ptr() == small.data_ptr()


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


def test_memory_that_is_read_as_it_lies_has_its_values():
    program = read(Strided(), (torch.randn(1, 300, 64),))
    constants = [value.constant for value in program.given if value.constant is not None]
    assert len(constants) == 1 and torch.equal(constants[0], torch.ones(300, 64))
