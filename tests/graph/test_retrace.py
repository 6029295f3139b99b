"""A graph at another width, read off a run on shapes alone, is the one that an export gives."""

import nets
import pytest
import torch
from torch import nn

from prunus.graph.export import export
from prunus.graph.program import flattened
from prunus.graph.record import run
from prunus.graph.retrace import retraced
from prunus.graph.training import on
from prunus.modules.cutting import shaped


class Written(nn.Module):
    """Numbers that follow the width, in every way in which code writes them."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nets.conv(3, 8), nn.Linear(8, 2)

    def forward(self, x):
        y = self.first(x)
        n, c, h, w = y.shape
        y = y.reshape(n, c, -1).unflatten(2, (h, w)) / c**0.5
        y = y + torch.zeros(c, 1, 1) + torch.arange(c, dtype=y.dtype).view(1, c, 1, 1) * torch.ones(c, 1, 1)
        mask = torch.zeros(h, w, dtype=y.dtype)
        mask[: h // 2, 1:] = 2
        y = y + mask
        y.sum()  # of no use
        left, right = y.split([c // 2, c - c // 2], 1)
        y = torch.cat([right, left.narrow(1, 0, c // 2)], 1).detach()
        return self.second(torch.chunk(y, 2, 3)[0].mean((2, 3)).expand(3, n, c)[0])


class Regions(Written):
    """The same under autocast and no_grad, one in the other."""

    def forward(self, x):
        with torch.autocast("cpu", enabled=False):
            x = self.first(x).relu()
            with torch.no_grad():
                left, right = x.chunk(2, 1)
            x = torch.cat([right, left], 1)
        return self.second(x.mean((2, 3)))


class Branching(Written):
    """Another operator at another width."""

    def forward(self, x):
        y = self.first(x).mean((2, 3))
        return self.second(y.relu() if y.shape[1] == 8 else y.tanh())


class Indexed(Written):
    """A list as an index: on shapes alone it has no values."""

    def forward(self, x):
        return self.second(self.first(x)[:, :, [2, 0, 1]].mean((2, 3)))


def narrow(model, device=None):
    six = torch.arange(6)
    return shaped(model, {"first.weight": {0: six}, "first.bias": {0: six}, "second.weight": {1: six}}, device)


def exported(*example, training):
    return flattened(export(*example, training=training))


def calls(program):
    """Return what a graph calls: the operator, its arguments by name and number, the shape of what comes out."""
    nodes = [node for node in program.graph.nodes if node.op == "call_function"]
    shapes = [getattr(node.meta["val"], "shape", None) for node in nodes]
    return [(str(node.target), str(node.args), shape) for node, shape in zip(nodes, shapes, strict=True)]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kind", [Written, Regions])
def test_it_is_the_graph_that_an_export_gives(kind, training):
    model, images = kind(), torch.randn(2, 3, 6, 6)
    wide = exported(model, (images,), None, training=training)
    code = run(narrow(model, "meta"), on((images,), "meta"), {}, training=training)
    again = retraced(wide, code)
    by_export = exported(narrow(model), (images,), None, training=training)
    assert again is not None
    assert calls(again) == calls(by_export) != calls(wide)


class Idle(Written):
    """Numbers in what nobody reads."""

    def forward(self, x):
        y = self.first(x)
        n, c, h, w = y.shape
        z = y.flatten(2).transpose(1, 2)
        z.transpose(1, 2).reshape(n, c, h, w)
        return self.second(z.mean(1))


class Recurrent(Written):
    """A recurrent layer over channels that stay, before some that go."""

    def __init__(self, kind):
        super().__init__()
        self.middle = kind(4, 5, num_layers=2, bidirectional=True, batch_first=True)
        self.first = nn.Linear(10, 8)

    def forward(self, x):
        states, last = self.middle(x)
        last = last[0] if isinstance(last, tuple) else last
        return self.second(self.first(states).mean(1) * last.mean())


@pytest.mark.parametrize(
    ("model", "fed"),
    [(Idle(), torch.randn(2, 3, 6, 6))]
    + [(Recurrent(kind), torch.randn(2, 7, 4)) for kind in (nn.LSTM, nn.GRU, nn.RNN)],
    ids=["idle", "LSTM", "GRU", "RNN"],
)
def test_what_is_idle_and_what_recurs_is_retraced_whole(model, fed):
    wide = exported(model, (fed,), None, training=False)
    code = run(narrow(model, "meta"), on((fed,), "meta"), {}, training=False)
    again = retraced(wide, code)
    assert again is not None
    assert calls(again) == calls(export(narrow(model), (fed,), None, training=False)) != calls(wide)
    assert len(code.operations) < 40  # steps of a sequence are not taken apart


@pytest.mark.parametrize("kind", [Branching, Indexed])
def test_there_is_none_where_the_code_does_something_else_or_cannot_be_seen(kind):
    model, images = kind(), torch.randn(2, 3, 6, 6)
    wide = exported(model, (images,), None, training=False)
    same = run(shaped(model, {}, "meta"), on((images,), "meta"), {}, training=False)
    other = run(narrow(model, "meta"), on((images,), "meta"), {}, training=False)
    assert (retraced(wide, same) is not None) == (kind is Branching)
    assert retraced(wide, other) is None
