"""factorize: two layers of a lower rank, where that makes the network smaller; never NaN."""

import nets
import pytest
import torch
from drawn_layers import TOLERANCES, assert_equal, convolutions, network
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import prunus
from prunus.errors import EditError
from prunus.surgery import FactorizeLayer
from prunus.surgery.factorize import full_rank
from prunus.surgery.layers import layer_at
from prunus.surgery.svd import balanced_factors, decomposed, rank_of_energy
from prunus.verify import difference


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@given(layer=convolutions(min_side=2), scheme=st.sampled_from(["channel", "spatial"]))
@settings(max_examples=40, deadline=None)
def test_at_full_rank_nothing_changes(layer, scheme, dtype):
    model, image = network(layer, dtype)
    named = layer_at("1", layer)
    edit = FactorizeLayer(layer=named, rank=full_rank(named, scheme), scheme=scheme)
    assert edit.exact
    narrow = prunus.apply(edit, model)
    assert_equal(model, narrow, image)
    assert_equal(narrow, prunus.apply(prunus.contract(narrow, "1"), narrow), image)


@given(inner=st.integers(1, 8), outer=st.integers(1, 8), bias=st.booleans())
@settings(max_examples=30, deadline=None)
def test_linear_layers_at_full_rank(inner, outer, bias):
    model = nn.Sequential(nn.Linear(inner, outer, bias=bias), nn.Tanh()).double()
    named = layer_at("0", model[0])
    narrow = prunus.apply(FactorizeLayer(layer=named, rank=full_rank(named)), model)
    assert_equal(model, narrow, torch.randn(2, 3, inner, dtype=torch.float64))


def test_what_was_of_low_rank_is_found_and_kept():
    """A layer that training brought to rank 3 is factorised at 3, by energy, without a change."""
    model, image = network(nn.Conv2d(6, 8, 3, padding=1))
    with torch.no_grad():
        model[1].weight.copy_((torch.randn(8, 3).double() @ torch.randn(3, 54).double()).reshape(8, 6, 3, 3))
    plan = prunus.factorize(model, "1", energy=1 - 1e-9)
    assert [edit.rank for edit in plan] == [3]
    narrow = prunus.apply(plan, model)
    assert [tuple(p.weight.shape) for p in narrow[1].layers] == [(3, 6, 3, 3), (8, 3, 1, 1)]
    assert [p.bias is not None for p in narrow[1].layers] == [False, True]
    assert_equal(model, narrow, image)


def test_only_what_becomes_smaller_is_factorised():
    """r (C k k + K) < K C k k: 8 x 4 x 3 x 3 has 288 weights, a rank costs 44; the linear one 30, a rank costs 11."""
    model = nn.Sequential(nn.Conv2d(4, 8, 3), nn.Linear(5, 6), nn.Conv2d(4, 4, 3, groups=4))
    ranks = {2: ["0", "1"], 3: ["0"], 6: ["0"], 7: []}
    for rank, paths in ranks.items():
        layers = ["0"] if rank > 5 else ["0", "1"]
        assert [edit.layer.path for edit in prunus.factorize(model, layers, rank=rank)] == paths
    assert not prunus.factorize(model, "2", rank=1).edits  # 9 weights become 10
    spatial = nn.Sequential(nn.Conv2d(4, 8, 3))  # a rank costs 3 * 4 + 3 * 8 = 36
    assert [len(prunus.factorize(spatial, "0", rank=r, scheme="spatial")) for r in (7, 8)] == [1, 0]


def test_best_approximation():
    model, _ = network(nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2))
    matrices = model[1].weight.detach().reshape(2, 2, 3, 9).transpose(1, 2).reshape(2, 3, 18)
    sigma = torch.linalg.svdvals(matrices)
    narrow = prunus.apply(prunus.factorize(model, "1", rank=1), model)
    assert isinstance(narrow[1].factor0, nn.ConvTranspose2d) and isinstance(narrow[1].factor1, nn.Conv2d)
    back = prunus.apply(prunus.contract(narrow, "1"), narrow)
    torch.testing.assert_close((back[1].weight - model[1].weight).detach().norm(), sigma[:, 1:].norm())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "either a rank or an energy"),
        ({"rank": 1, "energy": 0.5}, "either a rank or an energy"),
        ({"rank": 5}, r"0: the rank must be a whole number in 1\.\.4, not 5"),
        ({"energy": -1}, "energy is a share"),
        ({"energy": True}, "energy must be a number or None, not True"),
        ({"rank": 1, "scheme": "tucker"}, "unknown scheme 'tucker'; known: channel, spatial"),
        ({"rank": 1, "layers": "1", "scheme": "spatial"}, "1: a Linear has no height and width"),
        ({"rank": 1, "layers": "2"}, "'2' matches no convolution"),
    ],
)
def test_what_cannot_be_factorised_is_refused(arguments, message):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(4, 4))
    with pytest.raises(EditError, match=message):
        prunus.factorize(model, **arguments)


def broken_svd(*_, **__):
    raise torch.linalg.LinAlgError("linalg.svd: failed to converge")


def nan_svd(matrices, **_):
    return tuple(torch.full(shape, float("nan")).double() for shape in ((1, 4, 4), (1, 4), (1, 4, 27)))


@pytest.mark.parametrize("broken", [broken_svd, nan_svd])
def test_a_decomposition_that_does_not_converge_falls_back_and_says_so(broken, monkeypatch):
    model, image = network(nn.Conv2d(3, 4, 3))
    layer = layer_at("1", model[1])
    expected = prunus.apply(FactorizeLayer(layer=layer, rank=2), model)
    monkeypatch.setattr(torch.linalg, "svd", broken)
    with pytest.warns(UserWarning, match=r"1: the singular value decomposition did not converge .*Gram matrix"):
        full = prunus.apply(FactorizeLayer(layer=layer, rank=4), model)
    assert_equal(model, full, image)
    with pytest.warns(UserWarning, match="did not converge"):
        lower = prunus.apply(FactorizeLayer(layer=layer, rank=2), model)
    assert difference(expected, lower, (image,))[1] < 1e-10


@pytest.mark.parametrize("shape", [(1, 4, 9), (2, 9, 4), (1, 5, 5)])
def test_the_fallback_gives_the_same_factors(shape, monkeypatch):
    torch.manual_seed(0)
    matrices = torch.randn(shape, dtype=torch.float64)
    left, sigma, right = decomposed(matrices, "here")
    monkeypatch.setattr(torch.linalg, "svd", broken_svd)
    with pytest.warns(UserWarning, match="here: the singular value"):
        left_too, sigma_too, right_too = decomposed(matrices, "here")
    torch.testing.assert_close(sigma, sigma_too)
    torch.testing.assert_close(left @ right, matrices)
    torch.testing.assert_close(left_too @ right_too, matrices, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("scale", [0.0, 1e-300, 1e-30, 1e200])
@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.filterwarnings("ignore:.*did not converge")
def test_factors_are_finite_at_any_scale(scale, fails, monkeypatch):
    torch.manual_seed(0)
    matrices = scale * (torch.randn(1, 6, 2) @ torch.randn(1, 2, 7)).double()
    if fails:
        monkeypatch.setattr(torch.linalg, "svd", broken_svd)
    for rank in (1, 2, 6):
        left, right = balanced_factors(matrices, rank, "here")
        assert bool(left.isfinite().all()) and bool(right.isfinite().all())
    torch.testing.assert_close(left @ right, matrices, rtol=1e-9, atol=1e-12 * scale)
    assert rank_of_energy(matrices, 1 - 1e-6, "here") == (2 if scale else 1)


def test_where_everything_fails_it_is_refused(monkeypatch):
    model, _ = network(nn.Conv2d(3, 4, 3))
    monkeypatch.setattr(torch.linalg, "svd", broken_svd)
    monkeypatch.setattr(torch.linalg, "eigh", broken_svd)
    with (
        pytest.warns(UserWarning, match="did not converge"),
        pytest.raises(EditError, match=r"1: its weight has no singular value decomposition"),
    ):
        prunus.apply(FactorizeLayer(layer=layer_at("1", model[1]), rank=1), model)


def test_the_factorised_network_is_traced_exported_and_loaded(tmp_path):
    case = nets.CASES["flatten"]
    model, inputs = case.model(torch.float32), case.inputs(torch.float32)
    plan = prunus.factorize(model, "*", rank=1)
    assert len(plan) == 3
    small = prunus.apply(plan, model).eval()
    groups = prunus.trace(small, inputs)
    assert groups.params() == sum(p.numel() for p in small.parameters()) < case.params
    path = prunus.export_onnx(small, inputs, tmp_path / "small.onnx")
    assert prunus.check_parity(small, path, inputs).passed
    prunus.save(tmp_path / "folder", small, plan)
    loaded = prunus.load(tmp_path / "folder", case.build)
    assert difference(small, loaded, inputs)[0] == 0
