"""Rounding is judged by rounding: what a deep or badly scaled network rounds by is no error, and an error is found."""

import copy

import pytest
import torch
from torch import nn

import prunus
from prunus.deploy.parity import require
from prunus.errors import EditError
from prunus.records import EXACT
from prunus.surgery import Plan
from prunus.verify import apply_measured, change_of_outputs, check_removal


class Cancels(nn.Module):
    """Subtracts channels that are nearly alike: rounds by far more than a network of its size should."""

    def __init__(self, alike=1e-3):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 3, padding=1, bias=False)
        with torch.no_grad():
            for parameter in self.first.parameters():
                parameter[1::2] = parameter[::2] + alike * parameter[1::2]
            self.last.weight[:, 1::2] = -self.last.weight[:, ::2]

    def forward(self, images):
        return self.last(self.first(images))


def example():
    return torch.randn(2, 3, 9, 9, generator=torch.Generator().manual_seed(1))


def test_a_badly_scaled_network_is_expanded_and_contracted_though_float32_moves_by_more_than_the_fixed_bound():
    model, inputs = Cancels().eval(), example()
    wide, records = apply_measured(model, prunus.expand(model, "first", 4, keep_function=True), inputs)
    _, more = apply_measured(wide, prunus.contract(wide), inputs)
    assert max(record.max_rel_diff for record in [*records, *more]) > EXACT["float32"]
    assert max(record.max_rel_diff_float64 for record in [*records, *more]) < 1e-9


def test_an_error_that_float32_would_hide_is_found_in_float64():
    model, inputs = Cancels().eval(), example()
    wrong = copy.deepcopy(model)
    with torch.no_grad():
        wrong.last.weight[0, 0, 0, 0] *= 1 + 2e-7  # the last bit
    found = change_of_outputs(model, wrong, (inputs,))
    assert found.relative <= found.tolerance and not found.is_rounding


@pytest.mark.parametrize("alike", [1.0, 1e-3])
def test_an_error_in_a_weight_is_never_taken_for_rounding(alike):
    model, inputs = Cancels(alike).eval(), example()
    for factor in (1 + 1e-6, 1 + 1e-4, 2.0):
        wrong = copy.deepcopy(model)
        with torch.no_grad():
            wrong.first.weight *= factor
        assert not change_of_outputs(model, wrong, (inputs,)).is_rounding


def test_a_network_that_rounds_little_has_the_fixed_bounds():
    model, inputs = Cancels(1.0).eval(), example()
    found = change_of_outputs(model, copy.deepcopy(model), (inputs,))
    assert (found.tolerance, found.tolerance_float64) == (EXACT["float32"], EXACT["float64"])
    double = change_of_outputs(model.double(), copy.deepcopy(model), (inputs.double(),))
    assert double.tolerance == EXACT["float64"]


def test_where_there_is_no_float64_it_is_said_and_the_fixed_bound_holds():
    class Names(Cancels):
        def forward(self, images):
            return super().forward(images.float())

    model, inputs = Names().eval(), example()
    found = change_of_outputs(model, copy.deepcopy(model), (inputs,))
    assert found.is_rounding and found.relative_float64 is None and found.tolerance == EXACT["float32"]
    assert "does not run in float64" in str(found)
    wide = prunus.apply(prunus.expand(model, "first", 4, keep_function=True), model)
    with pytest.raises(EditError, match="does not run in float64"):
        apply_measured(wide, prunus.contract(wide), inputs)


def test_what_is_not_exact_is_never_refused():
    model, inputs = Cancels().eval(), example()
    _, records = apply_measured(model, prunus.factorize(model, rank=1), inputs)
    assert records and not any(record.exact for record in records)
    assert apply_measured(model, Plan(), inputs) == (model, [])


def test_the_law_is_held_against_the_networks_own_rounding():
    model = nn.Sequential(nn.Conv2d(3, 3, 1), Cancels()).eval()
    records = [check_removal(model, example(), fraction=0.1, seed=seed) for seed in range(8)]  # one group each
    assert all(record.removed and record.passed for record in records)
    assert any(record.tolerance > EXACT["float32"] for record in records)


def test_parity_is_held_against_the_networks_own_rounding(tmp_path):
    model, inputs = Cancels().eval(), example()
    path = prunus.export_onnx(
        prunus.apply(prunus.expand(model, "first", 4, keep_function=True), model), inputs, tmp_path / "a.onnx"
    )
    record = prunus.check_parity(model, path, inputs)
    assert 1e-4 < record.max_rel_diff <= record.tolerance and record.passed
    require(record)
    wrong = copy.deepcopy(model)
    nn.init.zeros_(wrong.last.weight[1])
    assert not prunus.check_parity(wrong, path, inputs).passed
    assert not prunus.check_parity(model, path, inputs, tolerance=1e-6).passed  # stricter than the default: as it is
