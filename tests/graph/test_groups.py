"""What trace says of a group: where it lies, whether it may go, and why not."""

import inspect

import nets
import pytest
import torch
from idioms import check, images
from torch import nn

import prunus
from prunus.budget.greedy_selection import floors, greedy_selection
from prunus.errors import BudgetError, RecipeError, TraceError
from prunus.graph import Member, Role, Status, rule
from prunus.graph.rules import table
from prunus.models.erfnet import ERFNet
from prunus.penalties.zeros import zero_
from prunus.surgery.removal import removal
from prunus.verify import difference

IMAGE = torch.zeros(2, 3, 6, 6)


@torch.library.custom_op("prunus_test::mystery", mutates_args=())
def mystery(x: torch.Tensor) -> torch.Tensor:
    """An operator that nobody has described."""
    return x.flip(1) * 2


@torch.library.custom_op("prunus_test::doubled", mutates_args=())
def doubled(x: torch.Tensor) -> torch.Tensor:
    """An operator that a user describes."""
    return x * 2


mystery.register_fake(torch.empty_like)
doubled.register_fake(torch.empty_like)


class Calls(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def reasons_of(groups, path):
    """Return what is said of the channels that the weight at `path` makes."""
    slot = next(slot for slot in groups.slots if slot.path == path and slot.role is Role.PRODUCER)
    return [groups.reasons.get(group, ()) for group in slot.groups.tolist()]


def test_members_of_a_group_in_a_residual_network():
    groups = prunus.trace(nets.CASES["residual"].model(torch.float32), IMAGE)
    slot = next(slot for slot in groups.slots if slot.path == "0.weight" and slot.dim == 0)
    branch = "1.parts.1"
    expected = {
        Member("0.weight", 0, 4, Role.PRODUCER),
        Member("0.bias", 0, 4, Role.PRODUCER),
        Member(f"{branch}.0.weight", 1, 4, Role.CONSUMER),
        Member(f"{branch}.3.weight", 0, 4, Role.PRODUCER),
        Member(f"{branch}.4.weight", 0, 4, Role.PRODUCER),
        Member(f"{branch}.4.bias", 0, 4, Role.PRODUCER),
        Member(f"{branch}.4.running_mean", 0, 4, Role.STATISTIC),
        Member(f"{branch}.4.running_var", 0, 4, Role.STATISTIC),
        Member("5.weight", 1, 4, Role.CONSUMER),
    }
    group = int(slot.groups[4])
    assert set(groups.members(group)) == expected
    assert groups.status(group) is Status.EXACT


def test_flatten_gives_a_channel_all_its_positions():
    groups = prunus.trace(nets.CASES["flatten"].model(torch.float32), IMAGE)
    reading = next(slot for slot in groups.slots if slot.path == "3.weight" and slot.dim == 1)
    making = next(slot for slot in groups.slots if slot.path == "0.weight" and slot.dim == 0)
    assert reading.groups.tolist() == making.groups.repeat_interleave(36).tolist()


def test_outputs_are_refused_and_select_says_so():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU())
    groups = prunus.trace(model, IMAGE)
    assert groups.refused.all()
    assert all("reaches the network's output 0" in texts[0] for texts in reasons_of(groups, "0.weight"))
    with pytest.raises(BudgetError, match=r"nothing in this network can be removed.*reaches the network's output 0"):
        prunus.select(model, groups)


def test_an_unknown_operator_refuses_by_name():
    model = nets.sequence(nets.conv(3, 6, 1), Calls(lambda x: mystery(x)), nets.conv(6, 5, 1), nn.ReLU(), channels=5)
    groups = prunus.trace(model, IMAGE)
    assert int(groups.exact.sum()) == 5
    assert all("unknown operator prunus_test::mystery" in texts[0] for texts in reasons_of(groups, "0.weight"))
    record = prunus.check_removal(model, IMAGE, fraction=1.0)
    assert record.max_rel_diff <= 1e-5 and record.removed == 4


def test_a_user_registers_a_rule_for_an_operator(monkeypatch):
    monkeypatch.setattr(table, "_RULES", dict(table._RULES))
    model = nets.sequence(nets.conv(3, 6, 1), Calls(lambda x: doubled(x)), channels=6)
    assert not prunus.trace(model, IMAGE).exact.any()
    rule("prunus_test::doubled")(lambda call: call.args[0])
    assert int(prunus.trace(model, IMAGE).exact.sum()) == 6


@pytest.mark.parametrize(
    ("name", "path", "operator"),
    [
        ("sigmoid", "0.weight", "sigmoid"),
        ("layer_norm", "0.weight", "layer_norm"),
    ],
)
def test_approximate_names_the_operator(name, path, operator):
    case = nets.CASES[name]
    groups = prunus.trace(case.model(), case.inputs())
    for texts in reasons_of(groups, path):
        assert operator in texts[0]


def test_approximate_means_that_the_output_changes():
    case = nets.CASES["sigmoid"]
    model, inputs = case.model(), case.inputs()
    groups = prunus.trace(model, inputs)
    chosen = ~groups.exact & ~groups.refused
    chosen[chosen.nonzero()[0]] = False
    zero_(model, groups, chosen)
    assert not prunus.select(model, groups).edits
    _, relative = difference(model, prunus.apply(removal(groups, chosen), model), inputs)
    assert relative > 1e-3


def test_tracing_leaves_the_model_as_it_was():
    model = nets.CASES["auxiliary_head"].model()
    model.aux.eval()
    before = nets.state(model)
    prunus.trace(model, nets.CASES["auxiliary_head"].inputs())
    nets.assert_same_state(before, nets.state(model))


class Decides(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


class Reads(nn.Module):
    def forward(self, x):
        return -x if x.sum().item() > 0 else x


class Chooses(nn.Module):
    def forward(self, x):
        return x[x > 0]


LINE, ITEM, CHOICE = (inspect.getsourcelines(kind.forward)[1] + 1 for kind in (Decides, Reads, Chooses))


class Branches(nn.Module):
    """Two graphs, of which values choose one."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = (nn.Conv2d(4, 4, 1) for _ in range(3))

    def forward(self, x):
        y = self.first(x)
        return torch.cond(y.sum() > 0, lambda t: self.second(t), lambda t: self.third(t), (y,))


def test_an_operator_of_graphs_refuses_what_reaches_it():
    groups = prunus.trace(Branches(), torch.randn(1, 4, 3, 3))
    assert not bool(groups.removable.any())
    assert any("unknown operator python::cond" in reason.text for reason in groups.told)


@pytest.fixture
def process_group():
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize(
    ("build", "inputs", "message"),
    [
        (
            lambda: nn.Linear(4, 2),
            torch.zeros(2, 5),
            r"Linear cannot be run on inputs \(\(2, 5\) torch.float32\).*cannot be multiplied \(2x5 and 4x2\)",
        ),
        (
            lambda: nn.Linear(4, 2),
            (torch.zeros(2, 4), 1),
            r"inputs \(\(2, 4\) torch.float32, int\).*takes 2 positional arguments",
        ),
        (lambda: nn.Linear(4, 2, device="meta"), torch.zeros(2, 4), "weight is on the meta device"),
        (
            lambda: nn.Sequential(nn.Linear(4, 4), Decides()),
            torch.zeros(2, 4),
            rf"has control flow that depends on a tensor's values at .*test_groups.py:{LINE}, so .*Trace the submodule",
        ),
        (
            Reads,
            torch.zeros(2, 4),
            rf"has control flow that depends on a tensor's values at .*test_groups.py:{ITEM}, so",
        ),
        (
            Chooses,
            torch.zeros(2, 4),
            rf"depends on a tensor's values at .*test_groups.py:{CHOICE}, so .*an index is a mask",
        ),
        (lambda: nn.DataParallel(nn.Linear(4, 2)), torch.zeros(2, 4), "wrapped in DataParallel"),
        (lambda: torch.compile(nn.Linear(4, 2)), torch.zeros(2, 4), "compiled"),
    ],
)
def test_what_cannot_be_read_is_said(build, inputs, message, capfd):
    with pytest.raises(TraceError, match=message):
        prunus.trace(build(), inputs)
    assert capfd.readouterr() == ("", "")


def test_a_distributed_network_is_unwrapped_by_hand(process_group):
    wrapped = nn.parallel.DistributedDataParallel(nn.Linear(4, 2))
    with pytest.raises(TraceError, match=r"wrapped in DistributedDataParallel.*`model.module`"):
        prunus.trace(wrapped, torch.zeros(2, 4))


def test_groups_without_some_are_those_of_a_fresh_trace() -> None:
    """Numbering, slots, status, layers and cost, after much of a small ERFNet is gone."""
    torch.manual_seed(0)
    model, inputs = ERFNet(num_classes=5, width_multiplier=0.5), torch.randn(1, 3, 32, 64)
    groups = prunus.trace(model, inputs)
    budget = prunus.Budget(macs=0.4)
    importance = torch.rand(len(groups), dtype=torch.float64)
    removed = greedy_selection(groups, importance, budget.absolute(groups), floors(groups, budget))
    left = groups.without(removed)
    fresh = prunus.trace(prunus.apply(removal(groups, removed), model), inputs)
    assert len(left) == len(fresh) and left.layer_names == fresh.layer_names
    assert torch.equal(left.exact, fresh.exact) and torch.equal(left.layers, fresh.layers)
    assert [(s.path, s.dim, s.role, s.groups.tolist()) for s in left.slots] == [
        (s.path, s.dim, s.role, s.groups.tolist()) for s in fresh.slots
    ]
    alive = torch.rand(len(left)) < 0.7
    assert (left.macs(alive), left.params(alive)) == (fresh.macs(alive), fresh.params(alive))


def test_groups_of_a_group_norm_go_as_a_whole():
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.GroupNorm(4, 8), nn.ReLU(), nn.Conv2d(8, 2, 1))
    groups = prunus.trace(model, torch.randn(1, 3, 4, 4))
    assert groups.status(0) is Status.EXACT and int(groups.exact.sum()) == 4
    assert [m.index for m in groups.members(0) if m.path == "0.weight"] == [0, 1]
    importance = torch.arange(len(groups), dtype=torch.float64)
    plan = prunus.select(model, groups, budget=prunus.Budget(macs=0.5), importance=importance)
    norm = prunus.apply(plan, model)[1]
    assert (norm.num_groups, norm.num_channels) == (2, 4)


def test_arguments_of_another_kind_are_refused_by_name():
    model, image = nn.Conv2d(3, 4, 3), torch.randn(1, 3, 8, 8)
    with pytest.raises(TraceError, match=r"takes a torch.nn.Module, not <class"):
        prunus.trace(nn.Conv2d, image)
    with pytest.raises(TraceError, match="example inputs are a tensor or a tuple of arguments, not None"):
        prunus.trace(model, None)
    groups = prunus.trace(nn.Sequential(model, nn.ReLU(), nn.Conv2d(4, 2, 1)), image)
    with pytest.raises(BudgetError, match="not a ChannelGroups and a Conv2d"):
        prunus.select(groups, model)
    with pytest.raises(BudgetError, match=r"as in budget=prunus.Budget\(macs=0.4\), not 0.5"):
        prunus.select(model, groups, budget=0.5)
    with pytest.raises(BudgetError, match=r"Budget\.macs is '0\.4'"):
        prunus.Budget(macs="0.4")
    with pytest.raises(RecipeError, match=r"run takes a recipe, or a file's path and overrides, not 0\.5"):
        prunus.run(0.5)
    with pytest.raises(RecipeError, match=r"nowhere\.yaml"):
        prunus.run("nowhere.yaml")


class Fixed(nn.Module):
    """A size hard-coded."""

    def __init__(self, size):
        super().__init__()
        self.size, self.layer = size, nn.Conv2d(size, size, 1)

    def forward(self, x):
        return self.layer(x).view(-1, self.layer.weight.shape[1], 8, 8) * torch.ones(8 if self.size == 8 else 4, 1, 1)


def test_a_reason_that_many_layers_share_is_told_once():
    parts = [nn.Conv2d(3, 8, 1), Fixed(8), Fixed(8), nn.Conv2d(8, 4, 1), Fixed(4), nn.Conv2d(4, 2, 1)]
    coverage = prunus.trace(nn.Sequential(*parts), torch.randn(1, 3, 8, 8)).coverage()
    reasons = {row.layer: row.reason for row in coverage.rows}
    assert len(set(reasons.values())) > 2  # each row says its own
    text = str(coverage)
    assert text.count("hard-coded") == 1 and "- likewise in" in text
    assert "reaches the network's output 0" in text


class Keeping(nn.Module):
    """Keeps its features, as code that draws attention maps does."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 2, 1)
        self.seen, self.named, self.table = [], {}, torch.ones(3)

    def forward(self, x):
        self.features = self.first(x)
        self.seen.append(self.features)
        self.named["features"] = self.features
        return self.last(self.features)


def test_what_code_keeps_of_a_run_is_put_back():
    model, image = Keeping().eval(), torch.randn(1, 3, 6, 6)
    seen, named, table = model.seen, model.named, model.table
    prunus.trace(model, image)
    assert not hasattr(model, "features") and model.seen is seen == [] and model.named is named == {}
    assert model.table is table
    with torch.no_grad():
        model(image)
    features = model.features
    assert prunus.check_removal(model, image).removed == 4
    assert model.features is features and len(model.seen) == 1 and model.seen[0] is features


class Distances(nn.Module):
    """A layer whose outputs are only compared, and one that nothing reads."""

    def __init__(self):
        super().__init__()
        self.first, self.points, self.spare = nn.Linear(4, 8), nn.Parameter(torch.randn(5, 8)), nn.Linear(4, 3)

    def forward(self, x):
        return (self.first(x)[:, None] - self.points).pow(2).sum(-1)


def test_layers_in_no_group_are_named():
    groups = prunus.trace(Distances(), torch.randn(2, 4))
    assert "No weight reads the channels of first, spare: " in str(groups.coverage())
    assert not prunus.trace(nets.CASES["plain"].model(), nets.CASES["plain"].inputs()).notes


class Factors(nn.Module):
    """A depthwise layer between two others, in factors of several channels for each of its own."""

    def __init__(self, *widths):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 2, 1)
        pairs = zip((6, *widths), (*widths, 6), strict=True)
        self.factors = nn.Sequential(*(nn.Conv2d(a, b, 3, padding=1, groups=6) for a, b in pairs))

    def forward(self, x):
        return self.last(self.factors(self.first(x).sigmoid()).relu())


@pytest.mark.parametrize("widths", [(12,), (24, 24), (6, 18, 12)])
def test_groups_of_an_expanded_depthwise_layer_go_with_its_channels(widths):
    model = Factors(*widths)
    groups = check(model, images(), exact=6)
    plan = prunus.select(model, groups, budget=prunus.Budget(params=0.5))
    small = prunus.apply(plan, model)
    assert [layer.groups for layer in small.factors] == [small.first.out_channels] * (len(widths) + 1)
    assert [layer.in_channels for layer in small.factors] == [
        size * small.first.out_channels // 6 for size in (6, *widths)
    ]
