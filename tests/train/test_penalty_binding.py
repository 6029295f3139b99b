"""Penalties on an expanded network act on the units of the contracted kernels."""

import pytest
import tiny
import torch
from torch import nn

import prunus
from prunus.errors import EditError
from prunus.penalties import Combined
from prunus.records import EpochRecord, ShrinkRecord, read
from prunus.train import penalty_binding
from prunus.train.fit import TrainingJob, fit

PENALTIES = {
    "group": prunus.GroupLasso(strength=0.3),
    "nuclear": prunus.NuclearNorm(strength=0.3),
    "both": Combined(penalties=(prunus.NuclearNorm(strength=0.2), prunus.GroupLasso(strength=0.2))),
}


def network(**conv):
    torch.manual_seed(0)
    layers = [nn.Conv2d(4, 6, 5, padding=2, **conv), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 3, 3, padding=1)]
    return nn.Sequential(*layers).double()


def pressed(penalty, model, inputs):
    """The contracted network after a step of the penalty, and how far it went."""
    before = prunus.apply(prunus.contract(model), model)
    bound = penalty_binding.bind(penalty, model, prunus.trace(model, inputs), inputs)
    bound.prox_(1.0)
    return before, prunus.apply(prunus.contract(model), model)


def test_the_optimizer_holds_the_factors_not_the_kernel():
    inputs, plain = torch.randn(1, 4, 8, 8, dtype=torch.float64), network()[:1]
    wide = prunus.apply(prunus.expand(plain, "0"), plain)
    bound = penalty_binding.bind(PENALTIES["nuclear"], wide, prunus.trace(wide, inputs), inputs)
    before = prunus.apply(prunus.contract(wide), wide)(inputs)
    bound.prox_(0.1, torch.optim.SGD(wide.parameters(), lr=0.1))
    assert not torch.equal(prunus.apply(prunus.contract(wide), wide)(inputs), before)


SPARSE = prunus.SparseGroupLasso(strength=0.1, alpha=0.7)


@pytest.mark.parametrize(
    ("penalty", "kind"),
    [*((penalty, kind) for penalty in PENALTIES.values() for kind in ("cl", "ck")), (SPARSE, "cl")],
    ids=[*(f"{name}-{kind}" for name in PENALTIES for kind in ("cl", "ck")), "sparse-cl"],
)
@pytest.mark.parametrize("conv", [{}, {"bias": False}, {"groups": 2}], ids=str)
def test_the_step_on_the_factors_is_the_step_on_the_contracted_kernel(penalty, kind, conv):
    inputs, plain = torch.randn(1, 4, 8, 8, dtype=torch.float64), network(**conv)
    wide = prunus.apply(prunus.expand(plain, "0", 4, kind=kind, keep_function=True), plain)
    before, after = pressed(penalty, wide, inputs)
    penalty.bind(plain, prunus.trace(plain, inputs)).prox_(1.0)
    largest = max(p.detach().abs().max() for p in before.parameters())
    assert any(not torch.equal(old, new) for old, new in zip(before.parameters(), after.parameters(), strict=True))
    for (path, found), wanted in zip(after.named_parameters(), plain.parameters(), strict=True):
        assert float((found - wanted).detach().abs().max() / largest) < 1e-9, path


@pytest.mark.parametrize("layer", [nn.Linear(5, 4), nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2)], ids=str)
def test_other_layers_follow_element_by_element_too(layer):
    torch.manual_seed(0)
    plain = nn.Sequential(layer, nn.ReLU(), nn.Identity()).double()
    shape = (2, 5) if isinstance(layer, nn.Linear) else (1, 4, 6, 6)
    behind = nn.Linear(4, 3) if isinstance(layer, nn.Linear) else nn.Conv2d(6, 3, 1)
    plain.append(behind.double())
    wide = prunus.apply(prunus.expand(plain, "0", 4), plain)
    inputs = torch.randn(*shape, dtype=torch.float64)
    before, after = pressed(SPARSE, wide, inputs)
    SPARSE.bind(before, prunus.trace(before, inputs)).prox_(1.0)
    assert bool((before[0].weight == 0).any())
    for found, wanted in zip(after.parameters(), before.parameters(), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)


def test_a_unit_that_goes_to_zero_can_be_removed_from_the_expanded_network():
    inputs, plain = torch.randn(2, 4, 8, 8), network().float().eval()
    wide = prunus.apply(prunus.expand(plain, "0", 4), plain)
    optimizer = torch.optim.SGD(wide.parameters(), lr=0.1, momentum=0.9)
    wide(inputs).square().sum().backward()
    optimizer.step()
    with torch.no_grad():  # of the contracted kernel only unit 2 is short
        wide[0].factor1.weight[2] *= 1e-3
        wide[1].weight[2] *= 1e-3
        wide[1].bias[2] *= 1e-3
        wide[0].factor1.bias[2] *= 0
    groups = prunus.trace(wide, inputs)
    penalty_binding.bind(prunus.GroupLasso(strength=0.01), wide, groups, inputs).prox_(1.0, optimizer)
    assert wide[0].factor1.weight[2].eq(0).all() and wide[0].factor1.bias[2] == 0
    assert optimizer.state[wide[0].factor1.weight]["momentum_buffer"][2].eq(0).all()
    assert not wide[0].factor0.weight.eq(0).any()  # what lies between the factors is nobody's unit
    small = prunus.apply(prunus.select(wide, groups), wide)
    assert small[0].factor1.out_channels == 5
    torch.testing.assert_close(small(inputs), wide(inputs), rtol=1e-5, atol=1e-5)


def test_a_nonlinear_expansion_has_no_kernel_to_penalise():
    inputs, plain = torch.randn(1, 4, 8, 8, dtype=torch.float64), network()
    wide = prunus.apply(prunus.expand(plain, "0", 4, nonlinear=True), plain)
    with pytest.raises(EditError, match="linearize"):
        penalty_binding.bind(prunus.GroupLasso(), wide, prunus.trace(wide, inputs), inputs)


def trained(folder, penalty, model, **changes):
    training = tiny.training(folder, **changes)
    return fit(TrainingJob(**{**vars(training), "penalty": penalty}), model, tiny.example())


@pytest.mark.parametrize("when", ["step", "epoch"])
@pytest.mark.parametrize("expanded", [False, True], ids=["plain", "expanded"])
def test_what_training_brings_to_zero_is_removed_between_epochs(tmp_path, when, expanded):
    model = tiny.build()
    if expanded:
        model = prunus.apply(prunus.expand(model, "encoder.3.*", 2, keep_function=True), model)
    penalty = prunus.GroupLasso(strength="auto", share=0.6, when=when)
    fitted = trained(tmp_path, penalty, model)
    records = read(tmp_path)
    cuts = [record for record in records if isinstance(record, ShrinkRecord)]
    assert cuts and all(cut.max_rel_diff <= 1e-5 and cut.max_rel_diff_float64 <= 1e-12 for cut in cuts)
    params = [record.params for record in records if isinstance(record, EpochRecord)]
    assert params[-1] < params[0] <= prunus.trace(model, tiny.example()).params()
    rebuilt = prunus.apply(fitted.plan, model)
    assert {p: t.shape for p, t in rebuilt.state_dict().items()} == {
        p: t.shape for p, t in fitted.model.state_dict().items()
    }
