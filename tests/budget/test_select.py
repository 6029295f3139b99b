import nets
import pytest
import torch
from torch import nn

import prunus
from prunus.budget.budget import layer_sizes
from prunus.budget.controller import Goal
from prunus.budget.greedy_selection import floors, greedy_selection
from prunus.budget.select import relative_norms
from prunus.errors import BudgetError, EditError, RecipeError
from prunus.penalties.zeros import zero_, zero_groups
from prunus.surgery.removal import removal, whole_dimensions
from prunus.verify import difference


@pytest.fixture(scope="module")
def plain():
    """A network of 8 and 5 channels, its groups and inputs."""
    model = nets.sequence(nets.conv(3, 16), nn.ReLU(), nets.conv(16, 12), nn.ReLU(), channels=12)
    nets.randomised(model, 0)
    inputs = nets.CASES["plain"].inputs(torch.float32)
    return model, prunus.trace(model, inputs), inputs


def removed(plan):
    """Return the number of output channels that a plan takes from each layer."""
    return {cut.path: len(cut.remove) for edit in plan for cut in edit.cuts if cut.dim == 0 and "weight" in cut.path}


def test_only_exact_zeros_go(plain):
    model, groups, _ = plain
    assert not prunus.select(model, groups).edits
    zeroed = nets.randomised(nets.sequence(nets.conv(3, 16), nn.ReLU(), nets.conv(16, 12), nn.ReLU(), channels=12), 0)
    chosen = torch.zeros(len(groups), dtype=torch.bool)
    layer = groups.layer_names.index("0")
    chosen[((groups.layers == layer) & groups.exact).nonzero().flatten()[:3]] = True
    zero_(zeroed, groups, chosen)
    with torch.no_grad():
        zeroed[2].weight[4] = 0  # its bias is not zero
        zeroed[2].weight[5] = 1e-30
        zeroed[2].bias[5] = 0
    plan = prunus.select(zeroed, groups)
    assert removed(plan) == {"0.weight": 3}


def test_a_layer_of_zeros_keeps_one_channel(plain):
    model, groups, inputs = plain
    zeroed = prunus.apply(prunus.Plan(), model)
    zero_(zeroed, groups, groups.exact)
    small = prunus.apply(prunus.select(zeroed, groups), zeroed)
    assert small[0].out_channels == 1 and small[2].out_channels == 1
    torch.testing.assert_close(small(*inputs), zeroed(*inputs))


@pytest.mark.parametrize("kind", ["macs", "params"])
@pytest.mark.parametrize("share", [0.2, 0.35, 0.5, 0.8, 0.999])
def test_the_budget_holds_and_one_bundle_more_would_break_it(plain, kind, share):
    model, groups, inputs = plain
    small = prunus.apply(prunus.select(model, groups, budget=prunus.Budget(**{kind: share})), model)
    whole, cost = getattr(groups, kind)(), getattr(prunus.trace(small, inputs), kind)()
    assert cost <= share * whole

    importance = relative_norms(model, groups)
    budget = prunus.Budget(**{kind: share})
    gone = greedy_selection(groups, importance, budget.absolute(groups), floors(groups, budget))
    back = []
    for layer in range(len(groups.layer_names)):  # the last to go is the most important one of its layer
        members = (gone & (groups.layers == layer)).nonzero().flatten()
        if members.numel():
            back.append(int(members[importance[members].argmax()]))
    costs = []
    for group in back:
        alive = ~gone
        alive[group] = True
        costs.append(groups.cost.total(kind, alive))
    assert max(costs) > share * whole


def test_what_still_fits_stays(monkeypatch):
    """A large bundle that goes last leaves room: then the last to go of each layer does not fit, or it stays."""
    greedy, filled = [], []
    for name, case in nets.CASES.items():
        if case.exact < 6:
            continue
        model, inputs = case.model(), case.inputs()
        groups = prunus.trace(model, inputs)
        budget = prunus.Budget(params=0.7, multiple_of=2)
        importance, bounds = relative_norms(model, groups), budget.absolute(groups)
        settings = importance, bounds, floors(groups, budget), 2
        try:
            gone = greedy_selection(groups, *settings)
        except BudgetError:  # out of reach where many layers are narrow
            continue
        cost = groups.cost.total("params", ~gone)
        assert cost <= bounds["params"]
        lasting = torch.zeros(len(groups), dtype=torch.bool)
        for inside in whole_dimensions(groups):
            lasting[inside[importance[inside].argmax()]] = True
        for layer in range(len(groups.layer_names)):  # the less important one goes first
            own = (groups.layers == layer) & groups.exact & ~lasting
            lost, kept = importance[own & gone], importance[own & ~gone]
            assert not lost.numel() or not kept.numel() or lost.max() <= kept.min(), name
        for layer in range(len(groups.layer_names)):
            members = (gone & (groups.layers == layer)).nonzero().flatten()
            alive = ~gone
            alive[members[importance[members].argsort()[-2:]]] = True
            kept = groups.cost.total("params", alive)
            assert not members.numel() or kept > bounds["params"] or cost > 0.99 * bounds["params"], name
        with monkeypatch.context() as patch:
            patch.setattr("prunus.budget.greedy_selection._restored", lambda groups, removed, alive, bounds: alive)
            greedy.append(groups.cost.total("params", ~greedy_selection(groups, *settings)))
        filled.append(cost)
    assert len(filled) > 20
    assert all(a <= b for a, b in zip(greedy, filled, strict=True)) and greedy != filled


def test_absolute_bounds_and_two_at_once(plain):
    model, groups, _ = plain
    small = prunus.apply(prunus.select(model, groups, budget=prunus.Budget(macs=60_000, params=0.5)), model)
    assert sum(p.numel() for p in small.parameters()) <= 0.5 * groups.params()
    alive_macs = prunus.trace(small, plain[2]).macs()
    assert alive_macs <= 60_000
    assert not prunus.select(model, groups, budget=prunus.Budget(macs=1.0)).edits


def test_the_least_important_channels_go_first(plain):
    model, groups, _ = plain
    importance = torch.arange(len(groups), dtype=torch.float64)
    plan = prunus.select(model, groups, budget=prunus.Budget(macs=0.8), importance=importance)
    for edit in plan:
        for cut in edit.cuts:
            if cut.dim == 0:
                assert cut.remove == tuple(range(len(cut.remove)))


def test_floors_hold(plain):
    model, groups, _ = plain
    budget = prunus.Budget(macs=0.35, min_share=0.5)
    small = prunus.apply(prunus.select(model, groups, budget=budget), model)
    assert small[0].out_channels >= 8 and small[2].out_channels >= 6
    assert floors(groups, budget) == {name: max(2, round(size / 2)) for name, size in layer_sizes(groups).items()}


@pytest.mark.parametrize("multiple", [2, 4])
def test_widths_are_multiples(plain, multiple):
    model, groups, _ = plain
    small = prunus.apply(prunus.select(model, groups, budget=prunus.Budget(macs=0.4, multiple_of=multiple)), model)
    assert small[0].out_channels % multiple == 0 and small[2].out_channels % multiple == 0
    assert small[0].out_channels < 16 or small[2].out_channels < 12


def test_a_budget_out_of_reach_names_the_smallest_reachable(plain):
    model, groups, inputs = plain
    with pytest.raises(BudgetError, match="smallest reachable is macs") as error:
        prunus.select(model, groups, budget=prunus.Budget(macs=0.001))
    smallest = int(str(error.value).split("reachable is macs ")[1].split(";")[0].replace(",", ""))
    small = prunus.apply(prunus.select(model, groups, budget=prunus.Budget(macs=smallest)), model)
    assert prunus.trace(small, inputs).macs() == smallest
    with pytest.raises(BudgetError):
        prunus.select(model, groups, budget=prunus.Budget(macs=smallest - 1))


def test_every_network_of_the_zoo_comes_under_a_budget():
    for name, case in nets.CASES.items():
        if case.exact < 6:
            continue
        model, inputs = case.model(), case.inputs()
        groups = prunus.trace(model, inputs)
        small = prunus.apply(prunus.select(model, groups, budget=prunus.Budget(params=0.8)), model)
        assert sum(p.numel() for p in small.parameters()) <= 0.8 * groups.params(), name
        small(*inputs)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "bounds nothing"),
        ({"macs": 0}, "must be above zero"),
        ({"macs": float("nan")}, "must be above zero"),
        ({"params": -3}, "must be above zero"),
        ({"params": float("inf")}, "must be above zero"),
        ({"macs": True}, "must be above zero"),
        ({"latency": 1.5}, "a share of the wide network's in"),
        ({"latency": 0}, "a share of the wide network's in"),
        ({"latency_ms": float("inf")}, "number of milliseconds above zero"),
        ({"latency_ms": "4"}, "number of milliseconds above zero"),
        ({"latency": 0.5, "latency_ms": 4}, "give one of them"),
        ({"macs": 1.5}, "a share of the wide network's is at most 1"),
        ({"macs": 0.5, "min_share": 2}, "min_share"),
        ({"macs": 0.5, "multiple_of": 0}, "multiple_of"),
    ],
)
def test_budgets_that_mean_nothing_are_refused(settings, message):
    with pytest.raises(BudgetError, match=message):
        prunus.Budget(**settings)


def test_what_does_not_fit_is_refused(plain):
    model, groups, _ = plain
    with pytest.raises(BudgetError, match="importance has shape"):
        prunus.select(model, groups, budget=prunus.Budget(macs=0.5), importance=torch.ones(3))
    with pytest.raises(BudgetError, match="finite"):
        prunus.select(model, groups, budget=prunus.Budget(macs=0.5), importance=torch.full((len(groups),), torch.nan))
    with pytest.raises(EditError, match="traced on a model with this tensor"):
        prunus.select(nn.Linear(2, 2), groups)
    assert not removal(groups, torch.zeros(len(groups), dtype=torch.bool)).edits


class FromNothing(nn.Module):
    """A layer without inputs: its weight has no values."""

    def __init__(self):
        super().__init__()
        self.first, self.nothing, self.last = nn.Linear(4, 6), nn.Linear(0, 6), nn.Linear(6, 2)

    def forward(self, x):
        return self.last(torch.relu(self.first(x) + self.nothing(x[:, :0])))


@pytest.mark.filterwarnings("ignore:Initializing zero-element")
def test_a_weight_without_values_has_only_zeros():
    model = FromNothing().eval()
    groups = prunus.trace(model, torch.randn(3, 4))
    assert groups.exact.any() and not zero_groups(model, groups).any()
    zero_(model, groups, groups.exact)
    assert torch.equal(zero_groups(model, groups), groups.exact)


class Partial(nn.Module):
    """A convolution of the first channels alone (FasterNet); both parts are attributes."""

    def __init__(self):
        super().__init__()
        self.first, self.part, self.last = nn.Conv2d(3, 12, 1), nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(12, 3, 1)
        self.sizes = [3, 9]

    def forward(self, x):
        seen, rest = torch.split(self.first(x), self.sizes, 1)
        return self.last(torch.cat([self.part(seen), rest], 1))


@pytest.mark.parametrize("rows", [slice(0, 3), slice(3, 12)], ids=["first", "rest"])
def test_no_part_of_a_layer_is_left_with_nothing(rows):
    torch.manual_seed(0)
    model, image = Partial(), torch.randn(1, 3, 8, 8)
    with torch.no_grad():
        model.first.weight[rows] = 0
        model.first.bias[rows] = 0
    groups = prunus.trace(model, image)
    small = prunus.apply(prunus.select(model, groups), model)
    assert min(small.sizes) >= 1 and difference(model, small, (image,))[1] <= 1e-6
    for share in (0.6, 0.3):
        small = prunus.apply(prunus.select(model, groups, budget=prunus.Budget(params=share)), model)
        assert min(small.sizes) >= 1 and small(image).shape == (1, 3, 8, 8)


@pytest.mark.parametrize("default", [torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("own", [torch.float32, None], ids=["made before", "made under it"])
def test_the_default_type_changes_no_choice(default, own):
    def plans():
        """Return the plan of exact zeros and that of a budget, for the same values."""
        model, image = (
            nets.sequence(nets.conv(3, 16), nn.ReLU(), nets.conv(16, 12), channels=12),
            torch.ones(2, 3, 8, 8),
        )
        if own is not None:
            model, image = model.to(own), image.to(own)
        with torch.no_grad():
            for parameter in model.parameters():
                values = torch.arange(parameter.numel(), dtype=torch.float64).reshape(parameter.shape)
                parameter.copy_(values * 7 % 5 + torch.arange(len(parameter)).reshape(-1, *[1] * (parameter.dim() - 1)))
        groups = prunus.trace(model, image)
        chosen = torch.zeros(len(groups), dtype=torch.bool)
        chosen[groups.exact.nonzero().flatten()[1:4]] = True
        budgeted = prunus.select(model, groups, budget=prunus.Budget(macs=0.5))
        zero_(model, groups, chosen)
        return budgeted, prunus.select(model, groups), int(chosen.sum())

    expected = plans()
    try:
        torch.set_default_dtype(default)
        found = plans()
    finally:
        torch.set_default_dtype(torch.float32)
    assert found == expected and found[2] == 3 and found[1].edits


@pytest.mark.parametrize("penalty", ["GroupLasso", "SparseGroupLasso", "NuclearNorm", "Orthogonality"])
def test_the_default_type_changes_no_proximal_step(penalty):
    def stepped():
        torch.manual_seed(0)
        model = nets.sequence(nets.conv(3, 8), nn.ReLU(), nets.conv(8, 6), channels=6).float()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(torch.arange(parameter.numel(), dtype=torch.float32).sin().reshape(parameter.shape))
        groups = prunus.trace(model, torch.ones(2, 3, 8, 8, dtype=torch.float32))
        bound = getattr(prunus, penalty)(strength=0.01).bind(model, groups)
        value = bound.value()
        bound.prox_(0.1, torch.optim.SGD(model.parameters(), lr=0.1))
        return float(value.detach()), [parameter.detach().clone() for parameter in model.parameters()]

    expected = stepped()
    try:
        torch.set_default_dtype(torch.float64)
        found = stepped()
    finally:
        torch.set_default_dtype(torch.float32)
    assert found[0] == pytest.approx(expected[0], rel=1e-6)
    torch.testing.assert_close(found[1], expected[1])


class Stem(nn.Module):
    """A stem, a block around which a skip connection leads, and a head."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.up = nn.Conv2d(16, 24, 1)
        self.block = nn.Sequential(nn.Conv2d(24, 20, 1), nn.ReLU(), nn.Conv2d(20, 24, 1))
        self.head = nn.Sequential(nn.Conv2d(24, 12, 1), nn.ReLU(), nn.Conv2d(12, 2, 1))

    def forward(self, x):
        x = torch.relu(self.up(self.stem(x)))
        return self.head(torch.relu(x + self.block(x)))


KEPT = {  # what is kept, and the widths that only then stay: a skip connection's are those of both its ends
    "stem.*": {"stem.0"},
    "stem": {"stem.0"},
    "stem.1": {"stem.0"},
    "block.2": {"up", "block.2"},
    "up": {"up", "block.2"},
    "*.0": {"stem.0", "block.0", "head.0"},
    "head": {"head.0"},
    "head.2": set(),
}


@pytest.fixture(scope="module")
def stemmed():
    torch.manual_seed(0)
    model, image = Stem().eval(), torch.randn(1, 3, 8, 8)
    return model, prunus.trace(model, image), image


def widths(model):
    return {path: len(module.weight) for path, module in model.named_modules() if isinstance(module, nn.Conv2d)}


@pytest.mark.parametrize("pattern", KEPT)
def test_layers_that_are_kept_keep_their_zeros_and_others_go(stemmed, pattern):
    model, groups, image = stemmed
    zeroed = prunus.apply(prunus.Plan(), model)
    chosen = torch.zeros(len(groups), dtype=torch.bool)
    for layer in range(len(groups.layer_names)):
        chosen[((groups.layers == layer) & groups.exact).nonzero().flatten()[:3]] = True
    zero_(zeroed, groups, chosen)
    small = prunus.apply(prunus.select(zeroed, groups, keep=[pattern]), zeroed)
    expected = {p: w if p in KEPT[pattern] or p == "head.2" else w - 3 for p, w in widths(model).items()}
    assert widths(small) == expected
    assert difference(zeroed, small, (image,))[1] <= 1e-6


@pytest.mark.parametrize("pattern", KEPT)
@pytest.mark.parametrize("way", ["select", "budget"])
def test_a_budget_leaves_kept_layers_alone(stemmed, pattern, way):
    model, groups, _ = stemmed
    eager = [groups.layer_names.index(path) for path in KEPT[pattern] if path in groups.layer_names]
    importance = 1 - torch.isin(groups.layers, torch.tensor(eager, dtype=groups.layers.dtype)).double()  # they go first
    free = prunus.Budget(params=0.7)
    if way == "select":
        plan = prunus.select(model, groups, budget=free, importance=importance, keep=pattern)
    else:
        plan = prunus.select(model, groups, budget=prunus.Budget(params=0.7, keep=(pattern,)), importance=importance)
    small = prunus.apply(plan, model)
    assert all(widths(small)[path] == widths(model)[path] for path in KEPT[pattern])
    assert sum(parameter.numel() for parameter in small.parameters()) <= 0.7 * groups.params()
    without = widths(prunus.apply(prunus.select(model, groups, budget=free, importance=importance), model))
    assert not KEPT[pattern] or any(without[path] < widths(model)[path] for path in KEPT[pattern])


def test_a_pattern_that_matches_nothing_is_refused_and_near_ones_named(stemmed):
    model, groups, _ = stemmed
    for settings in ({}, {"budget": prunus.Budget(macs=0.5)}):
        with pytest.raises(RecipeError, match=r"keep: 'blok\.\*' matches no layer .*similar: block\."):
            prunus.select(model, groups, keep=["stem.*", "blok.*"], **settings)
    for keep in ([model.stem], model.stem, 3, "", ["stem", ""]):
        for call in (
            lambda keep: prunus.select(model, groups, keep=keep),
            lambda keep: prunus.Budget(macs=1.0, keep=keep),
        ):
            with pytest.raises(RecipeError, match="keep takes patterns"):
                call(keep)
    with pytest.raises(BudgetError, match=r"cannot be met: .*keep fewer layers"):
        prunus.select(model, groups, keep="*", budget=prunus.Budget(macs=0.5))


@pytest.mark.parametrize(
    ("multiple", "zeros", "left"), [(8, 5, 16), (8, 8, 8), (8, 9, 8), (8, 16, 8), (4, 5, 12), (5, 3, 15), (6, 3, 16)]
)
def test_exact_zeros_leave_a_multiple(plain, multiple, zeros, left):
    _, groups, inputs = plain
    model = nets.randomised(nets.sequence(nets.conv(3, 16), nn.ReLU(), nets.conv(16, 12), nn.ReLU(), channels=12), 0)
    chosen = torch.zeros(len(groups), dtype=torch.bool)
    members = (groups.layers == groups.layer_names.index("0")).nonzero().flatten()
    chosen[members[:zeros]] = True
    zero_(model, groups, chosen)
    small = prunus.apply(prunus.select(model, groups, multiple_of=multiple), model)
    assert small[0].out_channels == left and small[2].out_channels == 12
    torch.testing.assert_close(small(*inputs), model(*inputs))


@pytest.mark.parametrize("multiple", [0, -1, 1.5, True, "8"])
def test_a_multiple_that_is_none_is_refused(plain, multiple):
    with pytest.raises(BudgetError, match="multiple_of is a whole number from 1"):
        prunus.select(plain[0], plain[1], multiple_of=multiple)
    with pytest.raises(BudgetError, match=r"belongs to it: prunus\.Budget\(\.\.\., multiple_of=8\)"):
        prunus.select(plain[0], plain[1], budget=prunus.Budget(macs=0.5), multiple_of=8)


@pytest.mark.parametrize("kind", [prunus.GroupLasso, prunus.SparseGroupLasso])
@pytest.mark.parametrize("pattern", KEPT)
def test_a_penalty_leaves_kept_layers_alone(stemmed, kind, pattern):
    model, groups, _ = stemmed
    pressed = prunus.apply(prunus.Plan(), model)
    kind(strength=1e6, keep=(pattern,)).bind(pressed, groups).prox_(1.0)
    for path, module in model.named_modules():
        if isinstance(module, nn.Conv2d) and path != "head.2":
            after = pressed.get_submodule(path).weight
            assert torch.equal(after, module.weight) if path in KEPT[pattern] else not after.any(), path
    with pytest.raises(RecipeError, match=r"keep: 'stam' matches no layer .*similar: stem"):
        kind(strength=1.0, keep=("stam",)).bind(pressed, groups)


def test_a_budget_may_take_approximate_groups_where_it_says_so():
    model = nn.Sequential(nn.Linear(6, 16), nn.LayerNorm(16), nn.ReLU(), nn.Linear(16, 2))
    inputs = torch.randn(4, 6)
    groups = prunus.trace(model, inputs)
    with pytest.raises(BudgetError, match="takes the mean over the channels"):
        prunus.select(model, groups, budget=prunus.Budget(params=0.5))
    budget = prunus.Budget(params=0.5, approximate=True)
    small = prunus.apply(prunus.select(model, groups, budget=budget), model)
    assert 0.4 < sum(p.numel() for p in small.parameters()) / groups.params() <= 0.5
    assert small(inputs).shape == (4, 2)
    with pytest.raises(BudgetError, match=r"prunus\.select"):
        Goal.of(groups, budget)
