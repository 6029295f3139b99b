"""What all penalties share: strength "auto", the first layers, when the step is due, sparse groups by hand."""

import math

import nets
import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

import prunus
from prunus.errors import RecipeError, TrainingError
from prunus.penalties import BoundPenalty, Combined, Shrinkage
from prunus.penalties.zeros import zero_, zero_groups
from prunus.surgery.removal import spare_layers

SHRINKING = {"group": prunus.GroupLasso, "sparse group": prunus.SparseGroupLasso, "nuclear": prunus.NuclearNorm}


def traced(name="plain"):
    case = nets.CASES[name]
    model, inputs = case.model(torch.float64, 0), case.inputs(torch.float64, 0)
    return model, prunus.trace(model, inputs)


@pytest.mark.parametrize("kind", SHRINKING.values(), ids=SHRINKING)
@pytest.mark.parametrize("when", ["step", "epoch"])
def test_auto_takes_the_stated_share_off_a_typical_unit_in_an_epoch(kind, when):
    model, groups = traced()
    settings = kind(strength="auto", share=0.05, when=when)
    penalty = settings.calibrated(model, groups, step_size=0.1, steps_per_epoch=20).bind(model, groups)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def norms():
        if kind is prunus.NuclearNorm:
            return torch.stack([layer.weight.detach().norm() for layer in penalty.layers])
        return penalty.slices.norms()[groups.exact]

    before = norms()
    for _ in range(20):
        penalty.after_step_(0.1, optimizer)
    penalty.after_epoch_(0.1, optimizer)
    share = (1 - norms() / before).median().item()
    assert share == pytest.approx(0.05, rel=0.25)


@pytest.mark.parametrize("kind", SHRINKING.values(), ids=SHRINKING)
def test_auto_must_know_how_far_an_epoch_goes(kind):
    model, groups = traced()
    with pytest.raises(RecipeError, match="steps_per_epoch"):
        kind(strength="auto").bind(model, groups)
    assert kind(strength=0.5).calibrated(model, groups, step_size=0.1, steps_per_epoch=1) == kind(strength=0.5)


@pytest.mark.parametrize("kind", SHRINKING.values(), ids=SHRINKING)
@pytest.mark.parametrize(
    "fields",
    [
        {"strength": -1},
        {"when": "never"},
        {"share": 0},
        {"first_layers": -1},
        {"strength": math.nan},
        {"strength": math.inf},
        {"first_factor": math.inf},
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused(kind, fields):
    with pytest.raises(RecipeError, match=next(iter(fields))):
        kind(**fields)


def test_other_settings_out_of_range_are_refused():
    with pytest.raises(RecipeError, match="alpha"):
        prunus.SparseGroupLasso(alpha=1.5)
    with pytest.raises(RecipeError, match="sharpness"):
        prunus.Orthogonality(sharpness=0)
    with pytest.raises(RecipeError, match="strength inf"):
        prunus.Orthogonality(strength=math.inf)
    with pytest.raises(RecipeError, match="one penalty or more"):
        Combined(penalties=())


def test_the_first_layers_are_pressed_less():
    model, groups = traced()
    plain = prunus.GroupLasso(strength=1.0).bind(model, groups).weights
    weaker = prunus.GroupLasso(strength=1.0, first_layers=1, first_factor=0.4).bind(model, groups).weights
    first = (groups.layers == 0) & groups.exact
    assert first.any() and (groups.exact & ~first).any()
    torch.testing.assert_close(weaker, torch.where(first, 0.4 * plain, plain))


def test_a_step_is_done_when_it_is_due():
    model, groups = traced()
    penalty = Combined(
        penalties=(prunus.NuclearNorm(strength=1.0, when="epoch"), prunus.GroupLasso(strength=1.0))
    ).bind(model, groups)
    assert isinstance(penalty, BoundPenalty)
    nuclear, group = penalty.penalties
    before = (nuclear.value().item(), group.value().item())
    assert penalty.value().item() == pytest.approx(sum(before))
    penalty.after_epoch_(0.01)
    after_epoch = (nuclear.value().item(), group.value().item())
    assert after_epoch[0] < before[0]
    weights = [layer.weight.detach().clone() for layer in nuclear.layers]
    penalty.after_step_(0.0)
    assert all(torch.equal(layer.weight, old) for layer, old in zip(nuclear.layers, weights, strict=True))
    penalty.after_step_(0.01)
    assert group.value().item() < after_epoch[1]


def test_sparse_group_lasso_by_hand():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[3.0, -0.25], [0.0, 2.0]]))
        model[0].bias.copy_(torch.tensor([4.0, 0.0]))
    groups = prunus.trace(model, torch.zeros(1, 2))
    penalty = prunus.SparseGroupLasso(strength=1.0, alpha=0.5).bind(model, groups)
    assert penalty.value().item() == pytest.approx(0.5 * math.sqrt(3) * (math.sqrt(25.0625) + 2) + 0.5 * (7.25 + 2))
    penalty.prox_(1.0)
    soft = torch.tensor([2.5, 0.0, 3.5])
    expected = soft * (1 - 0.5 * math.sqrt(3) / soft.norm())
    assert model[0].weight[0].tolist() == pytest.approx(expected[:2].tolist())
    assert model[0].bias[0].item() == pytest.approx(expected[2].item())


@pytest.mark.parametrize("name", ["residual", "plain"])
def test_sparse_groups_count_all_members_of_a_coupled_group(name):
    model, groups = traced(name)
    whole = prunus.GroupLasso(strength=1.0).bind(model, groups)
    none = prunus.SparseGroupLasso(strength=1.0, alpha=0.0).bind(model, groups)
    torch.testing.assert_close(none.value(), whole.value())
    prunus.SparseGroupLasso(strength=1e6).bind(model, groups).prox_(1.0)
    assert prunus.select(model, groups).edits


def test_all_shrinking_penalties_have_the_common_settings():
    assert all(issubclass(kind, Shrinkage) for kind in SHRINKING.values())


EVERY = {
    "group": prunus.GroupLasso(strength=0.01),
    "sparse group": prunus.SparseGroupLasso(strength=0.01),
    "nuclear": prunus.NuclearNorm(strength=0.01),
    "orthogonality, local": prunus.Orthogonality(strength=0.1),
    "orthogonality, global": prunus.Orthogonality(strength=0.1, scope="global"),
    "combined": Combined(penalties=(prunus.NuclearNorm(strength=0.01), prunus.Orthogonality(strength=0.1))),
}


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: prunus.GroupLasso(strength="automatic"), "GroupLasso.strength is 'automatic'"),
        (lambda: prunus.Orthogonality(when="steps"), "Orthogonality.when is 'steps'"),
        (lambda: prunus.Orthogonality(scope="Global"), "Orthogonality.scope is 'Global'"),
        (lambda: Combined(penalties=prunus.GroupLasso()), "Combined.penalties takes one penalty or more"),
        (lambda: Combined(penalties=(1,)), "Combined.penalties takes one penalty or more"),
    ],
)
def test_values_of_another_type_are_refused(make, said):
    with pytest.raises(RecipeError, match=said):
        make()


def test_a_pattern_that_matches_nothing_names_near_ones():
    model, groups = traced("residual")
    path = next(path for path, module in model.named_modules() if isinstance(module, nn.Conv2d))
    with pytest.raises(RecipeError, match=f"available: {path}"):
        prunus.NuclearNorm(layers=(f"{path}v",)).bind(model, groups)


@pytest.mark.parametrize("penalty", [prunus.NuclearNorm, prunus.Orthogonality])
def test_a_step_on_a_weight_that_is_computed_anew_is_refused(penalty):
    net = nn.Sequential(weight_norm(nn.Linear(4, 6)), nn.ReLU(), nn.Linear(6, 2))
    bound = penalty().bind(net)
    assert [layer.path for layer in bound.layers] == ["2"]
    with pytest.raises(RecipeError, match="'0' matches 0, whose weight is recomputed"):
        penalty(layers=("0",)).bind(net)
    with pytest.raises(RecipeError, match="recomputed from others"):
        penalty().bind(net[:2])


@pytest.mark.parametrize("penalty", EVERY.values(), ids=EVERY)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", ["plain", "residual", "grouped", "flatten"])
def test_a_unit_that_is_zero_stays_zero_exactly(penalty, dtype, name):
    case = nets.CASES[name]
    model, inputs = case.model(dtype, 0), case.inputs(dtype, 0)
    groups = prunus.trace(model, inputs)
    gone = torch.zeros(len(groups), dtype=torch.bool)
    gone[groups.exact.nonzero().flatten()[::2]] = True
    gone = spare_layers(groups, gone)
    zero_(model, groups, gone)
    before = [parameter.clone() for parameter in model.parameters()]
    penalty.bind(model, groups).prox_(0.1)
    assert any(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
    assert bool(zero_groups(model, groups)[gone].all())


@pytest.mark.parametrize("penalty", EVERY.values(), ids=EVERY)
@pytest.mark.parametrize("step_size", [-1.0, math.nan, math.inf, "a", None, torch.ones(2)], ids=str)
def test_a_step_that_is_none_is_refused(penalty, step_size):
    model, groups = traced()
    with pytest.raises(TrainingError, match="step's size is the learning rate"):
        penalty.bind(model, groups).prox_(step_size)


@pytest.mark.parametrize("penalty", EVERY.values(), ids=EVERY)
def test_a_forgotten_carry_is_noticed(penalty):
    model, groups = traced()
    small = prunus.apply(prunus.Plan(), model)
    bound, optimizer = penalty.bind(small, groups), torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(TrainingError, match=r"the SGD holds none of the \d+ parameters .* carry_"):
        bound.prox_(0.1, optimizer)
    prunus.carry_(prunus.Plan(), optimizer, model, small)
    bound.prox_(torch.tensor(0.1), optimizer)


def test_what_is_frozen_is_in_no_optimizer():
    model, groups = traced()
    bound = prunus.GroupLasso(strength=0.01).bind(model.requires_grad_(False), groups)
    before = float(bound.value())
    bound.prox_(0.1, torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1))
    assert float(bound.value()) < before


def test_a_pattern_may_stand_alone():
    model, groups = traced("residual")
    path = next(path for path, module in model.named_modules() if isinstance(module, nn.Conv2d))
    for penalty in (prunus.NuclearNorm, prunus.Orthogonality):
        assert [layer.path for layer in penalty(layers=path).bind(model, groups).layers] == [path]
