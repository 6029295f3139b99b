"""Every kind of edit: through JSON and back, the original untouched, everything else as it was, exact if it says so.

`EXAMPLES` names a network and a plan for each kind; a new kind of edit without one fails here.
"""

import copy
import dataclasses
import functools
import json
from typing import ClassVar

import nets
import pytest
import torch
from torch import nn

import prunus
from prunus.errors import EditError
from prunus.models.decn import SkippedPair
from prunus.models.small import ResidualBlock
from prunus.penalties.zeros import zero_
from prunus.surgery import Edit, RemoveChannels, ReplaceModules, bypass, fuse, linearize
from prunus.surgery.edit import edit_types
from prunus.verify import difference


def removal(name):
    """Half of the exactly removable groups are zero, and go."""
    case = nets.CASES[name]
    model, inputs = case.model(), case.inputs()
    groups = prunus.trace(model, inputs)
    chosen = groups.exact.clone()
    chosen[groups.exact.nonzero().flatten()[::2]] = False
    zero_(model, groups, chosen)
    return model, inputs, prunus.select(model, groups)


def fusion(name):
    case = nets.CASES[name]
    model, inputs = case.model(), case.inputs()
    return model, inputs, fuse(model, inputs)


def reshaping(plan, name, layers, **settings):
    """A plan of one of the functions that reshape layers."""
    case = nets.CASES[name]
    model, inputs = case.model(), case.inputs()
    return model, inputs, plan(model, layers, **settings)


def contraction(name, **settings):
    case = nets.CASES[name]
    model, inputs = case.model(), case.inputs()
    expanded = prunus.apply(prunus.expand(model, "*", 2, **settings), model)
    return expanded, inputs, prunus.contract(expanded)


def linearisation(name):
    case = nets.CASES[name]
    model, inputs = case.model(), case.inputs()
    expanded = prunus.apply(prunus.expand(model, "*", 2, nonlinear=True), model)
    return expanded, inputs, linearize(expanded)


def bypassed(name):
    """Residual layers without living units: one silent, one that is left with its bias."""
    torch.manual_seed(0)
    block = {"pair": SkippedPair(4), "block": ResidualBlock(4, 4, 1)}[name]
    model = nn.Sequential(nn.Conv2d(3, 4, 3), SkippedPair(4), block, nn.Conv2d(4, 2, 1)).double()
    with torch.no_grad():
        for parameter in (*model[1].parameters(), *next(block.children()).parameters()):
            parameter.copy_(torch.randn_like(parameter) if parameter.dim() == 1 else 0 * parameter)
        for parameter in model[1].parameters():
            parameter.zero_()
    inputs = torch.randn(2, 3, 9, 9, dtype=torch.float64)
    return model, (inputs,), bypass(model, inputs)


def example(function, name, *arguments, **settings):
    """An example whose name is its first argument, for the ids of the tests."""
    build = functools.partial(lambda _: function(name, *arguments, **settings), name)
    return build


def decomposition(name, layers, **settings):
    return reshaping(prunus.decompose, name, layers, **settings)


def factorisation(name, layers, **settings):
    return reshaping(prunus.factorize, name, layers, **settings)


def expansion(name, layers, **settings):
    return reshaping(prunus.expand, name, layers, **settings)


EXAMPLES = {
    "Decompose": [
        example(decomposition, "plain", "k>1", energy=1.0),
        example(decomposition, "residual", "k>1", width=4, nonlinear=True),
        example(decomposition, "dilated", "k>1", rank=9),
        example(decomposition, "grouped", ["*", "!0"], rank=2, nonlinear=True),
        example(decomposition, "transposed", "2", rank=10),
        example(decomposition, "c2f", "inner", width=3),
    ],
    "Factorize": [
        example(factorisation, "plain", "*", rank=2),
        example(factorisation, "flatten", "*", energy=0.6),
        example(factorisation, "residual", "k>1", rank=2, scheme="spatial"),
        example(factorisation, "transposed", "2", rank=2),
        example(factorisation, "conv3d", "0", rank=3),
    ],
    "Expand": [
        example(expansion, "plain", "*", rate=2, keep_function=True),
        example(expansion, "depthwise", "*", rate=4, keep_function=True),
        example(expansion, "transposed_grouped", "*", rate=1, keep_function=True),
        example(expansion, "conv1d", "*", rate=2),
        example(expansion, "residual", "k>1", rate=2, nonlinear=True),
        example(expansion, "shared", "shared", rate=2, keep_function=True),
    ],
    "Contract": [
        example(contraction, name) for name in ("plain", "depthwise", "transposed", "conv3d", "dilated", "flatten")
    ],
    "Bypass": [functools.partial(bypassed, name) for name in ("pair", "block")],
    "Linearize": [example(linearisation, "plain")],
    "RemoveChannels": [
        functools.partial(removal, name)
        for name in ("residual", "c2f", "tied_layers", "auxiliary_head", "attention", "written_shuffle")
    ],
    "FuseBatchNorm": [functools.partial(fusion, name) for name in ("residual", "transposed", "conv1d", "conv3d")],
}
ALL = [pytest.param(kind, build, id=f"{kind}-{build.args[0]}") for kind, builds in EXAMPLES.items() for build in builds]


def test_every_edit_has_an_example():
    known = {name for name, cls in edit_types().items() if cls.__module__.startswith("prunus.")}
    assert known == EXAMPLES.keys()


@pytest.mark.parametrize(("kind", "build"), ALL)
def test_laws_of_an_edit(kind, build):
    model, inputs, plan = build()
    assert {edit.edit_name for edit in plan} == {kind}
    assert prunus.Plan.from_json(plan.to_json()) == plan
    assert prunus.Plan.from_json(plan.to_json()).fingerprint() == plan.fingerprint()
    before = nets.state(model)
    small = prunus.apply(plan, model)
    nets.assert_same_state(before, nets.state(model))
    assert type(small) is type(model)
    if all(edit.exact for edit in plan):
        assert difference(model, small, inputs)[1] <= 1e-12
    again = prunus.apply(prunus.Plan.from_json(plan.to_json()), model)
    for first, second in zip(small.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(first, second)
    wide, narrow = ({id(t) for t in (*m.parameters(), *m.buffers())} for m in (model, small))
    assert not wide & narrow  # a copy, down to the last tensor
    assert all(edit.summary() and "\n" not in edit.summary() for edit in plan)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Noted(RemoveChannels):
    """An edit made of another, as a package of the user's own has it."""

    note: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class NotedTwice(Noted):
    """A subclass of a subclass, under a name of its own."""

    edit_name: ClassVar[str] = "tests.NotedTwice"
    again: tuple[str, ...] = ()


@pytest.mark.parametrize(("kind", "name"), [(Noted, "Noted"), (NotedTwice, "tests.NotedTwice")])
def test_an_edit_made_of_another_goes_through_json(kind, name):
    model, inputs, plan = removal("residual")
    given = {field.name: getattr(plan.edits[0], field.name) for field in dataclasses.fields(plan.edits[0])}
    own = prunus.Plan((kind(**given, note="by hand"),))
    again = prunus.Plan.from_json(own.to_json())
    assert again == own and type(again.edits[0]) is kind and edit_types()[name] is kind
    assert json.loads(own.to_json())["edits"][0]["edit"] == name
    assert difference(prunus.apply(again, model), prunus.apply(plan, model), inputs) == (0.0, 0.0)


def test_abstract_edits_are_none_and_two_of_one_name_are_refused():
    assert not {"Edit", "ReplaceModules", "ReplaceLayer"} & edit_types().keys()
    for name in ("Expand", "tests.NotedTwice", "RemoveChannels"):
        before = edit_types()[name]
        with pytest.raises(EditError, match=f"'{name}' already"):
            type("Other", (Edit,), {"edit_name": name})
        assert edit_types()[name] is before
    for width in (1, 2):  # a cell of a notebook, run again
        cell = type("Cell", (RemoveChannels,), {"width": width})
        assert edit_types()["Cell"] is cell


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dropped(ReplaceModules):
    """An edit of the user's own that replaces a module, and says no more than what takes its place."""

    exact: ClassVar[bool] = False
    path: str

    def successors(self, model):
        return {self.path: nn.Identity()}

    def summary(self):
        return f"drop {self.path}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Nameless(Dropped):
    path: ClassVar[str] = "1"


def test_what_a_replacing_edit_names_is_made_anew_and_the_rest_is_carried():
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    edit = prunus.Plan.from_json(prunus.Plan((Dropped(path="1"),)).to_json()).edits[0]
    small = prunus.apply(edit, model)
    assert isinstance(small[1], nn.Identity) and edit.made_anew == ("1",)
    kept = {path for path, tensor in model.named_parameters() if edit.carry(path, tensor) is not None}
    assert kept == {path for path, _ in small.named_parameters()}
    with pytest.raises(EditError, match="no field names what it replaces"):
        Nameless().carry("1.weight", model[1].weight)


@pytest.mark.parametrize(("kind", "build"), ALL)
def test_an_edit_carries_the_tensors_it_keeps(kind, build):
    model, _, plan = build()
    small = dict(prunus.apply(plan, model).named_parameters())
    for path, parameter in model.named_parameters():
        carried = parameter.detach()
        for edit in plan:
            carried = carried if carried is None else edit.carry(path, carried)
        if carried is not None and path in small:
            assert torch.equal(carried, small[path].detach())


@pytest.mark.parametrize(("kind", "build"), ALL)
def test_modes_frozen_parameters_and_precision_survive(kind, build):
    model, _, plan = build()
    model = model.to(torch.bfloat16).train()
    parts = list(model.modules())
    for part in parts[1::2]:
        part.training = False
    for parameter in list(model.parameters())[::2]:
        parameter.requires_grad_(False)
    small = prunus.apply(plan, model)
    modes = {path: part.training for path, part in model.named_modules()}
    for path, part in small.named_modules():
        while path not in modes:  # what stands inside of what replaced a layer has that layer's mode
            path = path.rpartition(".")[0]
        assert part.training == modes[path], path
    wide = dict(model.named_parameters())
    for path, parameter in small.named_parameters():
        assert parameter.dtype == torch.bfloat16
        if path in wide:
            assert parameter.requires_grad == wide[path].requires_grad, path


def test_memory_format_hooks_buffers_marks_and_ties_survive():
    model = nets.CASES["tied_layers"].model(torch.float32).to(memory_format=torch.channels_last)
    model.register_buffer("calibration", torch.ones(3), persistent=False)
    model.first.weight.no_decay = True
    calls = []
    model.second.register_forward_hook(lambda *arguments: calls.append("forward"))
    model.stem.register_forward_pre_hook(lambda *arguments: calls.append("before"))
    model.register_full_backward_hook(lambda *arguments: calls.append("backward"))
    inputs = nets.CASES["tied_layers"].inputs(torch.float32)
    plan = prunus.select(model, prunus.trace(model, inputs), budget=prunus.Budget(params=0.6))
    small = prunus.apply(plan, model)
    calls.clear()
    small(inputs[0].requires_grad_()).sum().backward()
    assert calls == ["before", "forward", "backward"]
    assert small.first.weight is small.second.weight
    assert small.first.groups == small.second.groups == small.first.weight.shape[0] < 6
    assert small.first.weight.no_decay
    assert small.stem.weight.is_contiguous(memory_format=torch.channels_last)
    assert "calibration" in dict(small.named_buffers()) and "calibration" not in small.state_dict()


def test_sizes_that_layers_keep_follow_their_tensors():
    model, _, plan = removal("transposed_grouped")
    small = prunus.apply(plan, model)
    assert small[2].in_channels == small[2].weight.shape[0]
    assert small[2].out_channels == 2 * small[2].weight.shape[1] == small[2].bias.shape[0]
    assert small[4].in_channels == small[4].weight.shape[1]
    assert small[7].in_features == small[7].weight.shape[1]
    model, _, plan = removal("depthwise_multiplier")
    small = prunus.apply(plan, model)
    assert small[2].out_channels == 3 * small[2].groups == 3 * small[2].in_channels


def test_plans_add_up():
    model, inputs, first = removal("residual")
    middle = prunus.apply(first, model)
    second = fuse(middle, inputs)
    both = prunus.apply(first + second, model)
    assert difference(both, prunus.apply(second, middle), inputs) == (0.0, 0.0)
    assert len(first + second) == len(first) + len(second)
    assert difference(prunus.apply(prunus.Plan(), model), model, inputs) == (0.0, 0.0)
    with pytest.raises(EditError, match=rf"edit {len(second)} \(RemoveChannels\)"):
        prunus.apply(second + first + first, model)


class Activated(nn.BatchNorm2d):
    """A BatchNorm that activates, as timm has it."""

    def forward(self, x):
        return super().forward(x).relu()


class Standardised(nn.Conv2d):
    """A convolution that standardises its weight."""

    def forward(self, x):
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return nn.functional.conv2d(x, weight, self.bias)


@pytest.mark.parametrize(
    "build",
    [
        lambda: nn.Sequential(nn.Conv2d(3, 4, 1), Activated(4)),
        lambda: nn.Sequential(Standardised(3, 4, 1), nn.BatchNorm2d(4)),
        lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 1)), nn.BatchNorm2d(4)),
        lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, track_running_stats=False)),
        lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.BatchNorm2d(4)),
    ],
    ids=["activated", "standardised", "parametrised", "no_statistics", "not_adjacent"],
)
def test_fuse_leaves_alone_what_it_would_break(build):
    model = nets.randomised(build(), 0)
    images = torch.randn(2, 3, 5, 5)
    plan = fuse(model, images)
    assert not plan.edits
    assert difference(model, prunus.apply(plan, copy.deepcopy(model)), (images,))[0] == 0
