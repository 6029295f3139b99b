"""Singular value thresholding, the nuclear norm over a network, and orthogonality."""

import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import prunus
from prunus.errors import RecipeError, TrainingError
from prunus.penalties import spectrum
from prunus.penalties.spectrum import DecompositionWarning, singular_value_threshold


def matrices(seed, shape, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def textbook(matrix, threshold):
    left, values, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    return (left * (values - threshold).clamp(min=0)[..., None, :]) @ right


@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (4, 4), (6, 3, 7), (2, 9, 4), (1, 8)], ids=str)
@pytest.mark.parametrize("threshold", [0.0, 1e-4, 0.5, 2.0, 100.0])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)], ids=str)
def test_it_equals_the_textbook(shape, threshold, dtype, tolerance):
    given_ = matrices(0, shape, dtype)
    found = singular_value_threshold(given_, threshold)
    assert found.dtype == dtype and found.shape == given_.shape
    torch.testing.assert_close(found.double(), textbook(given_, threshold), rtol=0, atol=tolerance * 5)
    if threshold == 100.0:
        assert bool((found == 0).all())


def test_small_singular_values_keep_their_digits():
    """The Gram matrix squares them; its eigenvalues alone would lose all that is below 3e-4 in float32."""
    left, _ = torch.linalg.qr(matrices(1, (6, 6)))
    right, _ = torch.linalg.qr(matrices(2, (8, 6)))
    values = torch.tensor([1.0, 0.5, 1e-1, 1e-3, 1e-4, 1e-5], dtype=torch.float64)
    matrix = ((left * values) @ right.T).float()
    found = torch.linalg.svdvals(singular_value_threshold(matrix, 2e-5).double())
    torch.testing.assert_close(found, (values - 2e-5).clamp(min=0), rtol=1e-2, atol=1e-5)


@pytest.mark.parametrize("turn", [lambda m: m, lambda m: m.mT], ids=["wide", "tall"])
def test_a_batch_holds_the_nearly_singular_beside_others(turn):
    batch = matrices(4, (3, 6, 9), torch.float32)
    batch[1, 0] = batch[1, 1] + 1e-3 * batch[1, 2]  # one singular value near zero
    batch[2] = 0.0
    found = singular_value_threshold(turn(batch), 1e-2)
    torch.testing.assert_close(found.double(), turn(textbook(batch, 1e-2)), rtol=0, atol=1e-5)


@given(seed=st.integers(0, 2**16), threshold=st.floats(0, 4))
@settings(max_examples=40, deadline=None)
def test_nothing_beats_it_and_it_is_non_expansive(seed, threshold):
    x, y = matrices(seed, (3, 4)), matrices(seed + 1, (3, 4))

    def objective(z):
        return 0.5 * (z - x).square().sum((-2, -1)) + threshold * torch.linalg.matrix_norm(z, "nuc")

    found = singular_value_threshold(x, threshold)
    directions = matrices(seed + 2, (50, 3, 4))
    for radius in (1e-3, 0.1, 1.0):
        assert bool((objective(found + radius * directions) >= objective(found) - 1e-12).all())
    assert (found - singular_value_threshold(y, threshold)).norm() <= (x - y).norm() + 1e-12


def test_a_decomposition_that_fails_falls_back_and_says_so(monkeypatch):
    def fails(*_, **__):
        raise torch.linalg.LinAlgError("did not converge")

    x = matrices(3, (3, 4))
    monkeypatch.setattr(torch.linalg, "eigh", fails)
    with pytest.warns(DecompositionWarning, match="taken directly"):
        found = singular_value_threshold(x, 0.5)
    torch.testing.assert_close(found, textbook(x, 0.5))
    monkeypatch.setattr(spectrum.torch.linalg, "svd", fails)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert torch.equal(singular_value_threshold(x, 0.5), x)
    assert any("stay as they are" in str(one.message) for one in caught)


def test_weights_that_are_not_finite_are_refused():
    with pytest.raises(TrainingError, match="not finite"):
        singular_value_threshold(torch.full((2, 2), torch.nan), 0.1)


class Layers(nn.Module):
    """Every kind of layer that has a matrix view, and two that have none."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3)
        self.grouped = nn.Conv2d(4, 6, (3, 1), groups=2)
        self.depthwise = nn.Conv2d(6, 6, 3, groups=6)
        self.up = nn.ConvTranspose2d(6, 4, 2, groups=2)
        self.norm = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, 5)


def test_each_layer_is_taken_as_rows_of_output_units():
    torch.manual_seed(0)
    model = Layers().double()
    expected = {
        "first.weight": textbook(model.first.weight.flatten(1), 0.2).reshape(4, 3, 3, 3),
        "grouped.weight": textbook(model.grouped.weight.reshape(2, 3, 6), 0.2).reshape(6, 2, 3, 1),
        "up.weight": textbook(model.up.weight.reshape(2, 3, 2, 2, 2).transpose(1, 2).flatten(2), 0.2)
        .reshape(2, 2, 3, 2, 2).transpose(1, 2).reshape(6, 2, 2, 2),
        "fc.weight": textbook(model.fc.weight, 0.2),
    }  # fmt: skip
    untouched = {name: p.detach().clone() for name, p in model.named_parameters() if name not in expected}
    penalty = prunus.NuclearNorm(strength=2.0).bind(model)
    value = sum(torch.linalg.matrix_norm(layer.view(layer.weight), "nuc").sum() for layer in penalty.layers)
    assert penalty.value().item() == pytest.approx(2 * value.item())
    penalty.prox_(0.1)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.detach(), (expected | untouched)[name], msg=name)


def test_layers_are_chosen_by_pattern():
    model = Layers()
    assert [layer.path for layer in prunus.NuclearNorm(layers=("f*",)).bind(model).layers] == ["first", "fc"]
    with pytest.raises(RecipeError, match=r"'frist' matches no .* available: first$"):
        prunus.NuclearNorm(layers=("frist",)).bind(model)
    weights = prunus.NuclearNorm(strength=1.0, first_layers=1, first_factor=0.5).bind(model).weights
    assert weights == [0.5, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("scope", ["global", "local"])
def test_orthogonality_follows_the_gradient_by_the_normalised_filters(scope):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 4, bias=False)).double()
    penalty = prunus.Orthogonality(strength=0.3, scope=scope).bind(model)
    before = model[0].weight.detach().clone()
    rows = nn.functional.normalize(before, dim=-1).requires_grad_()
    cosines = rows @ rows.T
    cost = cosines.square() / 2 if scope == "global" else torch.log(1 + torch.exp(10 * (cosines - 1)))
    value = 0.3 * cost.triu(1).sum()
    value.backward()
    assert penalty.value().item() == pytest.approx(value.item())
    penalty.prox_(0.1)
    torch.testing.assert_close(model[0].weight.detach(), before - 0.1 * rows.grad)


def test_global_orthogonality_makes_filters_orthogonal():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3)).double()
    penalty = prunus.Orthogonality(strength=1.0, scope="global").bind(model)
    for _ in range(300):
        penalty.prox_(0.02)
    rows = nn.functional.normalize(model[0].weight.detach().flatten(1), dim=-1)
    assert (rows @ rows.T - torch.eye(4)).abs().max() < 1e-2


def test_where_single_precision_fails_double_precision_does(monkeypatch, recwarn):
    eigh = torch.linalg.eigh

    def failing(gram):
        if gram.dtype is torch.float32:
            raise torch.linalg.LinAlgError("it did not converge")
        return eigh(gram)

    monkeypatch.setattr(torch.linalg, "eigh", failing)
    given_ = matrices(3, (4, 6), torch.float32)
    torch.testing.assert_close(singular_value_threshold(given_, 0.5).double(), textbook(given_, 0.5), rtol=0, atol=1e-5)
    assert not recwarn.list
