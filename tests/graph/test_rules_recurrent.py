"""Recurrent layers: a hidden channel goes with the rows of its gates, in all layers and directions."""

import pytest
import torch
from idioms import check, reasons
from torch import nn

import prunus


class Columns(nn.Module):
    """A recurrent layer over columns, then a linear one; the state that it begins with is torch's, or made here."""

    def __init__(self, layer, state, **settings):
        super().__init__()
        self.first, self.hidden, self.state = nn.Linear(6, 7), 5, state
        self.layer = layer(7, 5, batch_first=True, **settings)
        self.directions = 2 if self.layer.bidirectional else 1
        self.learnt = nn.Linear(6, 5) if state == "learnt" else None
        self.last = nn.Linear(self.layer.proj_size or 5 * self.directions, 3)

    def begin(self, x):
        number = self.layer.num_layers * self.directions
        if self.state == "learnt":
            return self.learnt(x[:, 0]).expand(number, -1, -1).contiguous()
        zeros = torch.zeros(number, x.shape[0], self.hidden, dtype=x.dtype)
        return {"zeros": (zeros, zeros), "ones": zeros + 1}.get(self.state)

    def forward(self, x):
        return self.last(self.layer(self.first(x).relu(), self.begin(x))[0])


class Cell(nn.Module):
    """One step after the other."""

    def __init__(self, layer):
        super().__init__()
        self.first, self.cell, self.last, self.hidden = nn.Linear(6, 7), layer(7, 5), nn.Linear(5, 3), 5

    def forward(self, x):
        state = x.new_zeros(x.shape[0], self.hidden)
        for step in range(x.shape[1]):
            given = (state, torch.zeros_like(state)) if isinstance(self.cell, nn.LSTMCell) else state
            found = self.cell(self.first(x[:, step]), given)
            state = found if isinstance(found, torch.Tensor) else found[0]
        return self.last(state)


X = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("layer", "state", "settings", "exact"),
    [
        (nn.LSTM, None, {}, 12),
        (nn.LSTM, "zeros", {"num_layers": 2, "bidirectional": True}, 12),
        (nn.GRU, None, {"num_layers": 2, "bias": False}, 12),
        (nn.GRU, "learnt", {"bidirectional": True}, 12),
        (nn.GRU, "ones", {}, 7),
        (nn.RNN, None, {"nonlinearity": "relu"}, 12),
        (nn.LSTM, None, {"proj_size": 3}, 0),
    ],
    ids=["lstm", "two layers and directions", "without biases", "learnt state", "ones", "relu", "projected"],
)
def test_hidden_channels_go(layer, state, settings, exact, tmp_path):
    model = Columns(layer, state, **settings)
    groups = check(model, X, exact=exact)
    if not exact:
        assert "keeps its sizes" in reasons(groups)
        return
    plan = prunus.select(model, groups, budget=prunus.Budget(params=0.5, approximate=True))
    small = prunus.apply(plan, model)
    assert small.layer.hidden_size < 5 and small.hidden == small.layer.hidden_size
    small(X.double()).sum().backward()
    prunus.save(tmp_path / "net", small, plan)
    loaded = prunus.load(tmp_path / "net", lambda: Columns(layer, state, **settings).double())
    assert torch.equal(loaded.eval()(X.double()), small.eval()(X.double()))


@pytest.mark.parametrize("layer", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
def test_hidden_channels_of_a_cell_go(layer):
    model = Cell(layer)
    groups = check(model, X, exact=12)
    small = prunus.apply(prunus.select(model, groups, budget=prunus.Budget(params=0.5)), model)
    assert small.cell.hidden_size == small.hidden < 5
    small(X.double()).sum().backward()


def test_a_recurrent_network_narrows_in_place():
    model = Columns(nn.LSTM, None)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    shrinker = prunus.Shrinker(model, optimizer, X, budget=prunus.Budget(params=0.5), steps=6)
    for _ in range(6):
        optimizer.zero_grad()
        model(X).square().mean().backward()
        optimizer.step()
        shrinker.step()
    assert model.layer.hidden_size == model.layer.weight_hh_l0.shape[1] < 5
