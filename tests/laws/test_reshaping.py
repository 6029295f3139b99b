"""Laws of reshaping on every network of the zoo: the exact is exact, and what comes out is cut like any other."""

import nets
import pytest
import torch

import prunus
from prunus.budget.check import difference, zero_
from prunus.budget.select import spare_layers
from prunus.errors import EditError
from prunus.surgery import Decompose, Factorize
from prunus.surgery.decompose import full_rank as spatial_rank
from prunus.surgery.factorize import full_rank

TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5}


def expanded(name, dtype):
    """The network with every layer expanded that can be; networks without any have nothing to show here."""
    model, inputs = nets.CASES[name].model(dtype), nets.CASES[name].inputs(dtype)
    try:
        plan = prunus.expand(model, "*", 2, keep_function=True)
    except EditError as error:
        pytest.skip(str(error))
    return model, prunus.apply(plan, model), inputs


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("name", nets.CASES)
def test_expanding_and_contracting_changes_nothing(name, dtype):
    model, wide, inputs = expanded(name, dtype)
    back = prunus.apply(prunus.contract(wide), wide)
    assert difference(model, wide, inputs)[1] <= TOLERANCES[dtype]
    assert difference(model, back, inputs)[1] <= TOLERANCES[dtype]
    shapes = {path: tensor.shape for path, tensor in model.state_dict().items()}
    assert shapes == {path: tensor.shape for path, tensor in back.state_dict().items()}


@pytest.mark.parametrize("name", nets.CASES)
def test_full_rank_changes_nothing(name):
    model, inputs = nets.CASES[name].model(), nets.CASES[name].inputs()
    try:
        layers = [edit.layer for edit in prunus.expand(model, "*", 1)]
    except EditError as error:
        pytest.skip(str(error))
    by_channels = prunus.Plan(tuple(Factorize(layer=layer, rank=full_rank(layer)) for layer in layers))
    square = [layer for layer in layers if len(layer.sizes[2]) == 2 and min(layer.sizes[2]) > 1]
    by_space = prunus.Plan(tuple(Decompose(layer=layer, rank=spatial_rank(layer)) for layer in square))
    for plan in (by_channels, by_space):
        assert difference(model, prunus.apply(plan, model), inputs)[1] <= 1e-12


@pytest.mark.parametrize("name", [name for name, case in nets.CASES.items() if case.exact])
def test_channels_of_an_expanded_network_are_removed_exactly(name):
    """Expand, press channels to zero, shrink, contract."""
    _, wide, inputs = expanded(name, torch.float64)
    groups = prunus.trace(wide, inputs)
    half = torch.rand(len(groups), generator=torch.Generator().manual_seed(0)) < 0.5
    chosen = spare_layers(groups, groups.exact & half)
    zero_(wide, groups, chosen)
    small = prunus.apply(prunus.select(wide, groups), wide)
    assert sum(p.numel() for p in small.parameters()) == groups.params(~chosen)
    assert difference(wide, small, inputs)[1] <= 1e-12
    assert difference(wide, prunus.apply(prunus.contract(small), small), inputs)[1] <= 1e-12
