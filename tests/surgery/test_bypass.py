"""A residual layer whose units are all zero disappears, and nothing changes."""

import copy
import json

import nets
import pytest
import torch
from torch import nn

import prunus
from prunus.budget.greedy_selection import floors
from prunus.errors import EditError
from prunus.models.decn import Dec8, SkippedPair
from prunus.models.small import ResidualBlock
from prunus.pipeline.reinitialization import reinitialized
from prunus.surgery import Plan, bypass, skippable
from prunus.verify import difference


def emptied(model, paths):
    """`model` with every unit of the layers at `paths` zero."""
    with torch.no_grad():
        for path in paths:
            for parameter in model.get_submodule(path).parameters():
                parameter.zero_()
    return model


def noisy(model):
    """Biases and statistics that an untrained network has not."""
    torch.manual_seed(1)
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point() and tensor.dim() == 1:
                tensor.add_(torch.rand_like(tensor))
    return model


def test_dec8_loses_its_dead_skip_layers_and_keeps_its_function():
    torch.manual_seed(0)
    model = noisy(Dec8(num_classes=5, width=8, skips=(2, 2)).double()).eval()
    skipped = [path for path, module in model.named_modules() if isinstance(module, SkippedPair)]
    assert len(skipped) == 4
    dead = skipped[1:3]
    emptied(model, [f"{path}.pair.vertical" for path in dead])
    with torch.no_grad():  # of one the second half has gone too, of the other it answers with its bias
        emptied(model, [f"{dead[0]}.pair.horizontal"])
    inputs = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    plan = bypass(model, inputs)
    assert [edit.path for edit in plan] == dead
    assert [len(edit.shift) for edit in plan] == [0, 8]
    small = prunus.apply(Plan.from_json(plan.to_json()), model)
    assert difference(model, small, (inputs,))[1] <= 1e-12
    assert isinstance(small.get_submodule(dead[0]), nn.Identity)
    before, after = prunus.trace(model, inputs), prunus.trace(small, inputs)
    pair = 2 * 3 * 8 * 8 * 2 * 2  # k 3, 8 x 8 channels, on 2 x 2 positions, vertical and horizontal
    assert before.macs() - after.macs() == 2 * pair * len(inputs)
    assert not bypass(small, inputs)


@pytest.mark.parametrize("dead", [["block.first.0", "block.first.1"], ["block.second.0"]], ids=str)
def test_a_rectified_block_leaves_its_constant_and_its_relu(dead):
    torch.manual_seed(0)
    layers = {"stem": nn.Conv2d(3, 4, 3), "block": ResidualBlock(4, 4, 1), "head": nn.Conv2d(4, 2, 1)}
    model = noisy(nn.Sequential()).double().eval()
    for name, layer in layers.items():
        model.add_module(name, layer.double())
    emptied(noisy(model).eval(), dead)
    inputs = torch.randn(2, 3, 9, 9, dtype=torch.float64)
    plan = bypass(model, inputs)
    assert [(edit.path, edit.rectified, len(edit.shift)) for edit in plan] == [("block", True, 4)]
    small = prunus.apply(plan, model)
    assert difference(model, small, (inputs,))[1] <= 1e-12
    assert not any(isinstance(module, ResidualBlock) for module in small.modules())


def test_the_constant_of_a_network_in_single_precision_is_exact_in_double():
    """A recipe measures each edit in both."""
    torch.manual_seed(0)
    model = emptied(noisy(nn.Sequential(nn.Conv2d(3, 4, 3), ResidualBlock(4, 4, 1))).eval(), ["1.second.0"])
    inputs = torch.randn(2, 3, 9, 9)
    plan = bypass(model, inputs)
    assert len(plan) == 1
    assert difference(model, prunus.apply(plan, model), (inputs,))[1] <= 1e-6
    assert difference(model.double(), prunus.apply(plan, model), (inputs.double(),))[1] <= 1e-12


def test_living_blocks_and_projections_stay():
    torch.manual_seed(0)
    model, inputs = nn.Sequential(ResidualBlock(3, 6, 2), nn.Flatten()).eval(), torch.randn(1, 3, 8, 8)
    assert not bypass(model, inputs)
    emptied(model, ["0.first.0"])  # the branch is constant, and the skip is a convolution: not what comes in
    assert not bypass(model, inputs)


@pytest.mark.parametrize("name", ["plain", "residual"])
def test_networks_without_dead_layers_stay(name):
    case = nets.CASES[name]
    assert bypass(case.model(torch.float64, 0), case.inputs(torch.float64, 0)) == Plan()


@pytest.mark.parametrize("bias", [0.0, 1.0])
def test_a_border_that_the_example_is_too_small_to_show_is_seen(bias):
    branch = nn.Sequential(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, padding=8, dilation=8), nn.ReLU())
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nets.Join(nets.add, branch, nn.Identity()), nn.Conv2d(4, 2, 1)).double()
    with torch.no_grad():
        branch[0].weight.zero_()
        branch[0].bias.fill_(bias)
    plan = bypass(model, torch.randn(1, 3, 6, 6))  # every tap but the middle one lies outside
    assert len(plan) == (bias == 0)
    large = torch.randn(1, 3, 24, 24, dtype=torch.float64)
    assert difference(model, prunus.apply(plan, model), (large,))[1] <= 1e-12


class Sum(nn.Module):
    """x + branch(x)."""

    def __init__(self, *branch):
        super().__init__()
        self.branch = nn.Sequential(*branch)

    def forward(self, x):
        return x + self.branch(x)


@pytest.mark.parametrize("bias", [0.0, 0.3])
@pytest.mark.parametrize(
    ("stem", "block", "size"),
    [
        (nn.Conv2d(3, 1, 1), Sum(nn.Conv2d(1, 4, 1)), 5),  # one channel becomes four
        (nn.Conv2d(3, 4, 1), Sum(nn.Conv2d(4, 4, 1), nn.Upsample(scale_factor=4)), 1),
        (nn.Conv2d(3, 4, 1), Sum(nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 4, 1)), 5),
    ],
    ids=["channels", "upsampled", "pooled"],
)
def test_a_sum_that_broadcasts_stays(stem, block, size, bias):
    model = nn.Sequential(stem, block).double().eval()
    layer = next(module for module in block.branch if isinstance(module, nn.Conv2d))
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.fill_(bias)
    inputs = torch.randn(2, 3, size, size, dtype=torch.float64)
    assert bypass(model, inputs) == Plan() and not skippable(model, inputs)


class Swapped(nn.Module):
    """Two dimensions exchanged."""

    def forward(self, x):
        return x.transpose(1, -1)


@pytest.mark.parametrize("equal", [False, True], ids=["biases differ", "biases equal"])
@pytest.mark.parametrize(
    ("block", "shapes", "dim"),
    [
        (Sum(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6)), [(2, 5, 6), (2, 7, 6), (2, 6), (1, 6)], -1),
        (Sum(nn.Linear(6, 6)), [(2, 6), (2, 5, 6)], -1),
        (Sum(nn.Linear(6, 6)), [(2, 6, 6), (2, 5, 6)], -1),
        (Sum(Swapped(), nn.Conv1d(6, 6, 1), Swapped()), [(2, 5, 6), (2, 6, 6)], -1),
        (Sum(nn.Conv1d(6, 6, 1)), [(2, 6, 5), (2, 6, 7), (6, 5)], -2),
        (Sum(nn.Conv2d(6, 6, 1)), [(1, 6, 1, 1), (2, 6, 3, 5)], -3),
        (Sum(nn.Conv2d(6, 6, 3, padding=1)), [(6, 4, 4), (2, 6, 3, 5)], -3),
    ],
    ids=["tokens", "rows", "as many tokens as channels", "swapped", "series", "one pixel", "no batch"],
)
def test_a_constant_lies_along_the_channels_whatever_the_size(block, shapes, dim, equal):
    torch.manual_seed(0)
    model = nn.Sequential(noisy(block)).double().eval()
    last = [module for module in block.modules() if hasattr(module, "weight")][-1]
    with torch.no_grad():
        last.weight.zero_()
        if equal:
            last.bias.fill_(0.3)
    plan = bypass(model, torch.randn(shapes[0], dtype=torch.float64))
    assert [(edit.dim, len(edit.shift)) for edit in plan] == [(dim, 6)]
    small = prunus.apply(Plan.from_json(plan.to_json()), model)
    for shape in shapes:
        assert difference(model, small, (torch.randn(shape, dtype=torch.float64),))[1] <= 1e-12


def test_plans_without_a_dimension_shift_the_second():
    block = nn.Sequential(Sum(nn.Conv2d(2, 2, 1)))
    edit = {"edit": "Bypass", "path": "0", "kind": "Sum", "shift": [1.0, 2.0]}
    small = prunus.apply(Plan.from_json(json.dumps({"format": 1, "edits": [edit]})), block)
    assert small(torch.zeros(1, 2, 1, 1)).flatten().tolist() == [1.0, 2.0]


class Placed(nn.Module):
    """Adds what is learned for each place, zero at first."""

    def __init__(self):
        super().__init__()
        self.places = nn.Parameter(torch.zeros(1, 4, 6, 6))

    def forward(self, x):
        return x + self.places


def test_a_learned_constant_is_no_branch():
    model, image = nn.Sequential(nn.Conv2d(4, 4, 1), Placed(), nn.Conv2d(4, 2, 1)), torch.randn(1, 4, 6, 6)
    assert bypass(model, image) == Plan() and not skippable(model, image)


def test_a_plan_for_another_network_is_refused():
    model = nn.Sequential(SkippedPair(4), nn.Flatten())
    emptied(model, ["0.pair"])
    plan = bypass(model, torch.randn(1, 4, 6, 6))
    assert len(plan) == 1 and "SkippedPair" in plan.edits[0].summary()
    small = prunus.apply(plan, model)
    with pytest.raises(EditError, match="is a Identity, the plan is for a SkippedPair"):
        prunus.apply(plan, small)
    with pytest.raises(EditError, match="has no such module"):
        prunus.apply(plan, nn.Flatten())


def test_a_trained_network_loses_its_dead_layers_from_the_optimizer():
    model = emptied(nn.Sequential(SkippedPair(4), nn.Conv2d(4, 2, 1)), ["0.pair"])
    plan = bypass(model, torch.randn(1, 4, 6, 6))
    small, optimizer = prunus.apply(plan, model), torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    prunus.carry_(plan, optimizer, model, small)
    assert {id(p) for group in optimizer.param_groups for p in group["params"]} == {id(p) for p in small.parameters()}


class Deep(nn.Module):
    """A trunk of eight channels and blocks with skips around them; the second block's end is the trunk's own."""

    def __init__(self, blocks=3):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.Sequential(*(SkippedPair(8) for _ in range(blocks)))
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x):
        return self.head(self.blocks(self.stem(x)))


def test_layers_that_may_vanish_are_those_whose_emptying_bypass_finds():
    torch.manual_seed(0)
    model, image = Deep(), torch.randn(1, 3, 6, 6)
    found = skippable(model, image)
    assert found == {f"blocks.{number}.pair.{part}" for number in range(3) for part in ("vertical", "horizontal")}
    for path in found:
        bypassed = bypass(emptied(copy.deepcopy(model), [path]), image)
        assert [edit.path for edit in bypassed] == [path.rpartition(".")[0].rpartition(".")[0]]


def test_only_layers_of_their_own_channels_may_be_emptied():
    model, image = Deep(), torch.randn(1, 3, 6, 6)
    groups = prunus.trace(model, image)
    kept = floors(groups, prunus.Budget(macs=0.5, min_share=0), skippable(model, image))
    assert {name: number for name, number in kept.items() if not number} == {
        f"blocks.{number}.pair.vertical": 0 for number in range(3)
    }
    assert kept["stem"] == 2
    assert 0 not in floors(groups, prunus.Budget(macs=0.5), skippable(model, image)).values()


def test_what_is_left_of_a_block_can_be_trained_from_scratch():
    model = emptied(nn.Sequential(SkippedPair(4), nn.Conv2d(4, 2, 1)), ["0.pair.vertical"])
    image = torch.randn(1, 4, 6, 6)
    small = prunus.apply(bypass(model, image), model)
    assert bool(small[0].shift.any())
    again = reinitialized(small, nn.Sequential(SkippedPair(4), nn.Conv2d(4, 2, 1)), seed=0)
    assert not bool(again[0].shift.any()) and not torch.equal(again[1].weight, small[1].weight)


class TwoInputs(nn.Module):
    """A residual block behind a sum of two inputs, the second of whole numbers."""

    def __init__(self):
        super().__init__()
        self.block = ResidualBlock(4, 4, 1)

    def forward(self, image, mask):
        return self.block(image * mask)


def test_networks_of_several_inputs_are_read():
    model = emptied(TwoInputs().eval(), ["block.second"])
    inputs = torch.randn(2, 4, 8, 8), torch.randint(2, (2, 1, 8, 8))
    assert skippable(model, inputs) == {"block.first.0", "block.second.0"}
    plan = bypass(model, inputs)
    assert [edit.path for edit in plan] == ["block"]
    assert difference(model, prunus.apply(plan, model), inputs)[1] == 0


@pytest.mark.parametrize("zero", [("second",), ("first", "second")])
def test_what_a_layer_of_zeros_reads_does_not_matter(zero):
    """The first convolution's bias is padded by the second, whose weight is zero."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)

        def forward(self, x):
            return torch.relu(x + self.second(torch.relu(self.first(x))))

    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 1), Block(), nn.Conv2d(8, 4, 1)).double().eval()
    inputs = torch.randn(2, 3, 9, 9, dtype=torch.float64)
    for name in zero:
        nn.init.zeros_(getattr(model[1], name).weight)
    plan = prunus.bypass(model, inputs)
    assert len(plan) == 1
    assert difference(model, prunus.apply(plan, model), (inputs,))[1] <= 1e-12
