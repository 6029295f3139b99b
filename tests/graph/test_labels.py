"""What the tracer keeps of constants."""

import torch
from torch import nn

from prunus.graph.call import Findings
from prunus.graph.export import export
from prunus.graph.labels import Label
from prunus.graph.walk import walk


def test_an_empty_table_of_positions_is_even():
    label = Label((0, 3), data=torch.zeros(0, 3, dtype=torch.long))
    assert label.uniform(0) and label.uniform(1)
    assert not Label((2, 3)).uniform(0)


def test_of_a_large_constant_that_nobody_reads_any_more_it_is_known_where_it_is_uniform():
    rows = torch.arange(200).view(200, 1, 1).expand(200, 1, 100).contiguous()
    spent = Label((200, 1, 100), data=rows).spent()
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
