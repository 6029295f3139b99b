"""Laws of reshaping on every network of the zoo: the exact is exact, and what comes out is cut like any other."""

import nets
import pytest
import torch

import prunus
from prunus.errors import EditError
from prunus.penalties.zeros import zero_
from prunus.surgery import DecomposeLayer, FactorizeLayer
from prunus.surgery.decompose import full_rank as spatial_rank
from prunus.surgery.factorize import full_rank
from prunus.surgery.removal import spare_layers
from prunus.verify import difference

TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5}
BARE = {"matrices"}  # networks without a convolution or linear layer
NAMES = [name for name in nets.CASES if name not in BARE]


def expanded(name, dtype):
    """The network with every layer expanded that can be."""
    model, inputs = nets.CASES[name].model(dtype), nets.CASES[name].inputs(dtype)
    return model, prunus.apply(prunus.expand(model, "*", 2, keep_function=True), model), inputs


@pytest.mark.parametrize("name", sorted(BARE))
def test_a_network_without_layers_is_refused(name):
    with pytest.raises(EditError, match="it has none"):
        prunus.expand(nets.CASES[name].model(), "*", 2)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_expanding_and_contracting_changes_nothing(name, dtype):
    model, wide, inputs = expanded(name, dtype)
    back = prunus.apply(prunus.contract(wide), wide)
    assert difference(model, wide, inputs)[1] <= TOLERANCES[dtype]
    assert difference(model, back, inputs)[1] <= TOLERANCES[dtype]
    shapes = {path: tensor.shape for path, tensor in model.state_dict().items()}
    assert shapes == {path: tensor.shape for path, tensor in back.state_dict().items()}


@pytest.mark.parametrize("name", NAMES)
def test_full_rank_changes_nothing(name):
    model, inputs = nets.CASES[name].model(), nets.CASES[name].inputs()
    layers = [edit.layer for edit in prunus.expand(model, "*", 1)]
    by_channels = prunus.Plan(tuple(FactorizeLayer(layer=layer, rank=full_rank(layer)) for layer in layers))
    square = [layer for layer in layers if len(layer.sizes[2]) == 2 and min(layer.sizes[2]) > 1]
    by_space = prunus.Plan(tuple(DecomposeLayer(layer=layer, rank=spatial_rank(layer)) for layer in square))
    for plan in (by_channels, by_space):
        assert difference(model, prunus.apply(plan, model), inputs)[1] <= 1e-12


@pytest.mark.parametrize("name", [name for name in NAMES if nets.CASES[name].exact])
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
