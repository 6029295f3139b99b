"""decompose: k x 1 then 1 x k, from scratch or from the trained weights."""

import nets
import pytest
import torch
from drawn_layers import TOLERANCES, assert_equal, convolutions, network
from hypothesis import given, settings
from torch import nn

import prunus
from prunus.errors import EditError
from prunus.penalties.zeros import zero_
from prunus.surgery import DecomposeLayer, Layer
from prunus.surgery.decompose import full_rank
from prunus.surgery.layers import layer_at
from prunus.verify import difference


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@given(layer=convolutions(min_side=2))
@settings(max_examples=40, deadline=None)
def test_at_full_rank_nothing_changes(layer, dtype):
    model, image = network(layer, dtype)
    plan = prunus.decompose(model, "1", rank=full_rank(layer_at("1", layer)))
    assert plan.edits[0].exact and prunus.Plan.from_json(plan.to_json()) == plan
    narrow = prunus.apply(plan, model)
    high, wide = layer.kernel_size
    assert [part.kernel_size for part in narrow[1].layers] == [(high, 1), (1, wide)]
    assert_equal(model, narrow, image)
    assert_equal(narrow, prunus.apply(prunus.contract(narrow, "1"), narrow), image)


def test_weights_and_shapes_by_hand():
    """An outer product of a column and a row is of rank one; k C L + k L F weights."""
    layer = nn.Conv2d(1, 1, 3, bias=False)
    column, row = torch.tensor([1.0, 2.0, -1.0]), torch.tensor([3.0, 0.0, 1.0])
    with torch.no_grad():
        layer.weight.copy_(torch.outer(column, row)[None, None])
    model = nn.Sequential(layer, nn.Conv2d(4, 6, 3))
    narrow = prunus.apply(prunus.decompose(model, "0", rank=1), model)
    vertical, horizontal = (part.weight.detach().flatten() for part in narrow[0].layers)
    torch.testing.assert_close(torch.outer(vertical, horizontal), torch.outer(column, row))
    torch.testing.assert_close(vertical.norm(), horizontal.norm())
    fresh = prunus.apply(prunus.decompose(model, "1", width=5, nonlinear=True), model)[1]
    assert [name for name, _ in fresh.named_children()] == ["factor0", "relu0", "factor1"]
    assert sum(p.numel() for p in fresh.parameters()) == (3 * 4 * 5 + 5) + (3 * 5 * 6 + 6)


def test_a_lower_rank_is_the_best_approximation():
    model, _ = network(nn.Conv2d(3, 4, 3))
    matrix = model[1].weight.detach().permute(1, 2, 0, 3).reshape(9, 12)
    sigma = torch.linalg.svdvals(matrix)
    for rank in (1, 4, 8):
        narrow = prunus.apply(prunus.decompose(model, "1", rank=rank), model)
        back = prunus.apply(prunus.contract(narrow, "1"), narrow)
        error = (back[1].weight - model[1].weight).detach().norm()
        torch.testing.assert_close(error, sigma[rank:].norm())


def test_energy_is_the_share_of_singular_values_not_squared():
    layer = nn.Conv2d(2, 2, 2, bias=False).double()
    left, right = (torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64))[0] for _ in range(2))
    matrix = left @ torch.diag(torch.tensor([4.0, 3.0, 2.0, 1.0]).double()) @ right
    with torch.no_grad():
        layer.weight.copy_(matrix.reshape(2, 2, 2, 2).permute(2, 0, 1, 3))
    model = nn.Sequential(layer)
    for energy, rank in ((0.4, 1), (0.41, 2), (0.7, 2), (0.9, 3), (0.95, 4), (1, 4)):
        assert prunus.decompose(model, "0", energy=energy).edits[0].rank == rank


def test_the_ways_to_start_and_their_law():
    case = nets.CASES["plain"]
    model, inputs = case.model(), case.inputs()
    bent = prunus.decompose(model, "k>1", rank=9, nonlinear=True)
    assert not any(edit.exact for edit in bent)
    narrow = prunus.apply(bent, model)
    assert torch.equal(narrow[0].factor0.bias.detach(), torch.zeros(9, dtype=torch.float64))
    with pytest.raises(EditError, match=r"0\.relu0: a ReLU is between the factors of 0"):
        prunus.contract(narrow, "0")
    straight = prunus.apply(prunus.decompose(model, "k>1", rank=9), model)
    assert torch.equal(straight[0].factor0.weight, narrow[0].factor0.weight)
    assert difference(model, straight, inputs)[1] > 1e-3  # the second layer's full rank is 15
    assert not prunus.decompose(model, "0", width=9).edits[0].exact
    skipped = prunus.decompose(model, "k>1", width=4, skip_first=1)
    assert [edit.layer.path for edit in skipped] == ["3"]


def test_decompose_factorize_shrink():
    case = nets.CASES["residual"]
    model, inputs = case.model(), case.inputs()
    narrow = prunus.apply(prunus.decompose(model, "k>1", rank=9), model)
    lower = prunus.apply(prunus.factorize(narrow, "1.*", rank=3), narrow)
    assert lower[1].parts[1][0].factor0.factor1.kernel_size == (1, 1)
    groups = prunus.trace(lower, inputs)
    chosen = groups.exact.clone()
    chosen[groups.exact.nonzero().flatten()[::2]] = False
    zero_(lower, groups, chosen)
    small = prunus.apply(prunus.select(lower, groups), lower)
    assert difference(lower, small, inputs)[1] <= 1e-12
    assert sum(p.numel() for p in small.parameters()) == groups.params(~chosen)
    whole = prunus.apply(prunus.contract(small, ["0", "1.*"]), small)
    assert difference(small, whole, inputs)[1] <= 1e-12
    assert type(whole[1].parts[1][0]) is nn.Conv2d


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "exactly one of rank, energy .* and width"),
        ({"rank": 1, "width": 1}, "exactly one of rank, energy .* and width"),
        ({"rank": 0}, r"0: the rank must be a whole number in 1\.\.9, not 0"),
        ({"rank": 10}, r"0: the rank must be a whole number in 1\.\.9, not 10"),
        ({"rank": 2.0}, r"rank must be a whole number or None, not 2\.0"),
        ({"rank": 10}, r"0: the rank must be a whole number in 1\.\.9, not 10"),
        ({"width": 0}, "0: the width must be a whole number at least 1, not 0"),
        ({"energy": 0}, r"energy is a share of the singular values in \(0, 1\], not 0"),
        ({"energy": 1.5}, r"energy is a share of the singular values in \(0, 1\], not 1\.5"),
        ({"layers": "1", "rank": 1}, "1: its kernel is 1 x 1: with a side of 1 there is nothing to decompose"),
        ({"layers": "2", "rank": 1}, "2: a Linear has no height and width to decompose into"),
        ({"layers": "3", "width": 3}, "3: a width of 3 cannot be shared among its 2 groups"),
        ({"layers": "nothing.*", "rank": 1}, r"'nothing\.\*' matches no convolution or linear layer"),
    ],
)
def test_what_cannot_be_decomposed_is_refused(arguments, message):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.Linear(3, 2), nn.Conv2d(4, 4, 3, groups=2))
    with pytest.raises(EditError, match=message):
        prunus.decompose(model, **arguments)


def test_an_edit_made_wrong_leaves_the_network():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1))
    before = nets.state(model)
    for edit, message in (
        (DecomposeLayer(layer=layer_at("0", model[0]), rank=10), r"in 1\.\.9, not 10"),
        (DecomposeLayer(layer=layer_at("0", model[0]), rank=-1, fresh=True), "at least 1"),
        (DecomposeLayer(layer=layer_at("1", model[1]), rank=1), "nothing to decompose"),
        (DecomposeLayer(layer=layer_at("1", model[0]), rank=1), "made for another network"),
    ):
        with pytest.raises(EditError, match=message):
            prunus.apply(edit, model)
        with pytest.raises(EditError, match=message):
            prunus.apply(prunus.Plan.from_json(prunus.Plan((edit,)).to_json()), model)
    nets.assert_same_state(before, nets.state(model))


@pytest.mark.parametrize(
    ("kind", "shape", "groups"),
    [("Conv2d", (3, 3, 3), 1), ("Linear", (), 1), ("ReLU", (3, 3), 1), ("Linear", (3, 0), 1), ("Linear", (3, 3), 0)],
)
def test_what_no_layer_is(kind, shape, groups):
    with pytest.raises(EditError, match=f"0: no layer is a {kind} of shape"):
        Layer(path="0", kind=kind, shape=shape, groups=groups)


def test_shapes_on_the_meta_device():
    model = nn.Sequential(nn.Conv2d(3, 4, 3))
    plan = prunus.decompose(model, "0", energy=0.5)
    shapes = [tuple(p.shape) for p in prunus.apply(plan, model).parameters()]
    meta = prunus.apply(plan, nn.Sequential(nn.Conv2d(3, 4, 3)).to("meta"))
    assert [tuple(p.shape) for p in meta.parameters()] == shapes and meta[0].factor0.weight.is_meta
    with pytest.raises(EditError, match="0 is on the meta device and has no singular values"):
        prunus.decompose(model.to("meta"), "0", energy=0.5)
