"""expand: more weights, the same function where it is asked for; contract takes it back."""

import nets
import pytest
import torch
from drawn_layers import TOLERANCES, assert_equal, convolutions, network
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import prunus
from prunus.errors import EditError
from prunus.penalties.zeros import zero_
from prunus.surgery import ExpandLayer, Factors, linearize
from prunus.surgery.layers import layer_at
from prunus.verify import difference

RATES = st.sampled_from([1, 1.5, 2, 4])


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@given(layer=convolutions(), rate=RATES, keep=st.booleans(), seed=st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_contracting_what_was_expanded(layer, rate, keep, seed, dtype):
    model, image = network(layer, dtype)
    plan = prunus.expand(model, "1", rate, keep_function=keep, seed=seed)
    assert prunus.Plan.from_json(plan.to_json()) == plan
    wide = prunus.apply(plan, model)
    assert plan.edits[0].exact == keep
    back = prunus.apply(prunus.contract(wide), wide)
    assert type(back[1]) is type(layer) and (back[1].bias is None) == (layer.bias is None)
    for name in ("kernel_size", "stride", "groups", "output_padding", "padding_mode"):
        assert getattr(back[1], name) == getattr(layer, name), name
    assert back[1].padding == layer.padding or layer.padding == "same"
    assert_equal(wide, back, image)
    if keep:
        assert_equal(model, wide, image)
        assert_equal(model, back, image)


@pytest.mark.parametrize(("size", "rate"), [(5, 4), (7, 4), (9, 9), (11, 9)])
@pytest.mark.parametrize("settings_", [{}, {"stride": 2, "padding": 3, "bias": False}, {"groups": 2, "dilation": 2}])
def test_large_kernels_become_convolutions_of_three_by_three(size, rate, settings_):
    layer = nn.Conv2d(2, 4, size, **settings_)
    torch.manual_seed(0)
    model, image = nn.Sequential(layer).double(), torch.randn(1, 2, 24, 25, dtype=torch.float64)
    plan = prunus.expand(model, "0", rate, keep_function=True)
    assert plan.edits[0].kind == "ck"
    wide = prunus.apply(plan, model)
    assert [part.kernel_size for part in wide[0].layers] == [(3, 3)] * ((size - 1) // 2)
    assert_equal(model, wide, image)
    back = prunus.apply(prunus.contract(wide), wide)
    assert back[0].kernel_size == (size, size)
    assert_equal(model, back, image)


def test_shapes_of_each_kind_by_hand():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Conv2d(8, 8, 3, groups=8), nn.Linear(5, 6))
    wide = prunus.apply(prunus.expand(model, "*", 4), model)
    assert [tuple(p.weight.shape) for p in wide[0].layers] == [(12, 3, 1, 1), (32, 12, 3, 3), (8, 32, 1, 1)]
    assert [(p.stride, p.padding) for p in wide[0].layers] == [
        ((1, 1), (1, 1)),
        ((2, 2), (0, 0)),
        ((1, 1), (0, 0)),
    ]
    assert [(p.groups, tuple(p.weight.shape)) for p in wide[1].layers] == [
        (8, (32, 1, 1, 1)),
        (8, (32, 4, 3, 3)),
        (8, (8, 4, 1, 1)),
    ]
    assert [tuple(p.weight.shape) for p in wide[2].layers] == [(20, 5), (24, 20), (6, 24)]
    assert list(dict(wide[0].named_children())) == ["factor0", "factor1", "factor2"]


def test_every_direction_of_a_kept_function_is_trained():
    """Directions that the function leaves free are not dead: every row gets gradients."""
    model, image = network(nn.Conv2d(3, 4, 3, padding=1))
    wide = prunus.apply(prunus.expand(model, "1", 4, keep_function=True), model)
    wide(image).square().sum().backward()
    for factor in wide[1].layers:
        rank = torch.linalg.matrix_rank(factor.weight.flatten(1).detach())
        assert rank == min(factor.weight.flatten(1).shape)
        assert bool((factor.weight.grad.flatten(1).norm(dim=1) > 0).all())


def test_fresh_weights_follow_from_the_seed_and_touch_no_global_state():
    model, _ = network(nn.Conv2d(3, 4, 3))
    before = torch.random.get_rng_state()
    first, again, other = (prunus.apply(prunus.expand(model, "1", 2, seed=seed), model) for seed in (0, 0, 1))
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(first[1].factor1.weight, again[1].factor1.weight)
    assert not torch.equal(first[1].factor1.weight, other[1].factor1.weight)
    bound = 1 / (6 * 9) ** 0.5
    assert 0.9 * bound < float(first[1].factor1.weight.detach().abs().max()) <= bound


def test_the_non_linear_stage_starts_the_linear_one():
    case = nets.CASES["plain"]
    model, inputs = case.model(), case.inputs()
    plan = prunus.expand(model, "*", 2, nonlinear=True)
    stage = prunus.apply(plan, model)
    assert isinstance(stage[0].relu0, nn.ReLU) and isinstance(stage[0].relu1, nn.ReLU)
    with pytest.raises(EditError, match=r"0\.relu0: a ReLU is between the factors of 0.*linearize"):
        prunus.contract(stage)
    optimizer = torch.optim.SGD(stage.parameters(), lr=0.1, momentum=0.9)
    stage(*inputs).square().sum().backward()
    optimizer.step()
    straight = linearize(stage)
    linear = prunus.apply(straight, stage)
    expected = prunus.apply(prunus.expand(model, "*", 2), model)
    expected.load_state_dict(stage.state_dict())  # the same names
    assert difference(linear, expected, inputs)[0] == 0
    buffers = {path: optimizer.state[p]["momentum_buffer"].clone() for path, p in stage.named_parameters()}
    carried = prunus.carry_(straight, optimizer, stage, linear)
    assert not carried.fresh
    for path, parameter in linear.named_parameters():
        assert torch.equal(optimizer.state[parameter]["momentum_buffer"], buffers[path])
    assert difference(linear, prunus.apply(prunus.contract(linear), linear), inputs)[1] < 1e-12
    with pytest.raises(EditError, match="no layer that was expanded with ReLUs"):
        linearize(linear)
    with pytest.raises(EditError, match="no factors with ReLUs"):
        prunus.apply(straight, linear)


def test_expand_zero_shrink_contract():
    case = nets.CASES["residual"]
    model, inputs = case.model(), case.inputs()
    wide = prunus.apply(prunus.expand(model, "*", 2, keep_function=True), model)
    groups = prunus.trace(wide, inputs)
    chosen = groups.exact.clone()
    chosen[groups.exact.nonzero().flatten()[::2]] = False
    zero_(wide, groups, chosen)
    small = prunus.apply(prunus.select(wide, groups), wide)
    assert difference(wide, small, inputs)[1] <= 1e-12
    assert small[0].out_channels == small[0].factor2.weight.shape[0] < 6  # what code reads follows
    back = prunus.apply(prunus.contract(small), small)
    assert difference(wide, back, inputs)[1] <= 1e-12
    kinds = {type(part).__name__ for part in back.modules()}
    assert "Factors" not in kinds and kinds == {type(part).__name__ for part in model.modules()}
    assert back[0].out_channels == back[0].weight.shape[0] == back[5].in_features < 6


def test_parameters_of_replaced_layers_start_with_fresh_state():
    case = nets.CASES["residual"]
    model, inputs = case.model(), case.inputs()
    optimizer = torch.optim.Adam(
        [{"params": model[0].parameters()}, {"params": [*model[1].parameters(), *model[5].parameters()], "lr": 0.5}]
    )
    model(*inputs).square().sum().backward()
    optimizer.step()
    plan = prunus.expand(model, "1.*", 2, keep_function=True)
    wide = prunus.apply(plan, model)
    carried = prunus.carry_(plan, optimizer, model, wide)
    assert set(carried.fresh) == {path for path, _ in wide.named_parameters() if ".factor" in path}
    held = [{id(p) for p in group["params"]} for group in optimizer.param_groups]
    factors = {id(p) for path, p in wide.named_parameters() if ".factor" in path}
    assert factors <= held[1] and len(held[0]) + len(held[1]) == len(list(wide.parameters()))
    assert all((p in optimizer.state) == (id(p) not in factors) for p in wide.parameters())
    wide(*inputs).square().sum().backward()
    optimizer.step()
    plan = prunus.contract(wide)
    back = prunus.apply(plan, wide)
    assert set(prunus.carry_(plan, optimizer, wide, back).fresh) == {"1.parts.1.0.weight", "1.parts.1.3.weight"}
    back(*inputs).square().sum().backward()
    optimizer.step()


def test_saved_and_loaded_without_making_the_weights_again(tmp_path):
    case = nets.CASES["plain"]
    model, inputs = case.model(), case.inputs()
    plan = prunus.expand(model, "*", 2, keep_function=True)
    plan = plan + prunus.contract(prunus.apply(prunus.Plan(plan.edits[:1]), model))
    small = prunus.apply(plan, model)
    prunus.save(tmp_path / "folder", small, plan)
    devices = []

    def build():
        built = case.build()
        devices.append(built[0].weight.device.type)
        return built

    loaded = prunus.load(tmp_path / "folder", build)
    assert devices == ["meta"]  # replayed on shapes alone: nothing is drawn or computed
    assert difference(small, loaded, inputs) == (0.0, 0.0)


class Reads(nn.Module):
    """Code that reads a layer's attributes."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.also = self.conv  # the same layer by another name
        self.listed = [self.conv]
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        x = self.conv(x) + self.listed[0](x) + self.also(x)
        assert x.shape[1] == self.conv.out_channels and self.conv.stride == (2, 2) and self.conv.kernel_size == (3, 3)
        return self.head(x.mean((2, 3))) * self.conv.in_channels * self.head.in_features * self.head.out_features


def test_code_marks_hooks_and_other_names_of_a_layer_go_on_working():
    model, image = nets.randomised(Reads(), 0).double(), torch.randn(1, 3, 7, 7, dtype=torch.float64)
    model.conv.mine = "a mark"
    model.conv.weight.no_decay = True
    seen = []
    model.conv.register_forward_hook(lambda module, *_: seen.append(type(module).__name__))
    wide = prunus.apply(prunus.expand(model, "*", 2, keep_function=True), model)
    assert wide.conv is wide.also and wide.conv is wide.listed[0] and wide.conv is not model.conv
    assert wide.conv.mine == "a mark" and all(factor.weight.no_decay for factor in wide.conv.layers)
    assert difference(model, wide, (image,))[1] < 1e-12
    assert "Factors" in seen and wide.conv.groups == 1 and wide.conv.padding == (1, 1)
    back = prunus.apply(prunus.contract(wide), wide)
    assert back.conv is back.listed[0] and back.conv.mine == "a mark" and back.conv.weight.no_decay
    assert difference(model, back, (image,))[1] < 1e-12
    assert type(wide.conv[:2]) is nn.Sequential and len(wide.conv[:2]) == 2 and wide.conv[0] is wide.conv.factor0


def test_a_default_device_of_the_user_does_not_matter():
    model, image = network(nn.Conv2d(3, 4, 5))
    with torch.device("meta"):  # stands for any other device
        wide = prunus.apply(prunus.expand(model, "1", 4, keep_function=True), model)
        back = prunus.apply(prunus.contract(wide), wide)
        narrow = prunus.apply(prunus.decompose(model, "1", rank=15), model)
        prunus.apply(prunus.factorize(model, "1", energy=0.5), model)
    for network_ in (wide, back, narrow):
        assert_equal(model, network_, image)


def test_memory_format_and_precision_stay():
    model = nn.Sequential(nn.Conv2d(3, 4, 3)).to(torch.bfloat16).to(memory_format=torch.channels_last).eval()
    wide = prunus.apply(prunus.expand(model, "0", 2), model)
    assert wide[0].factor1.weight.is_contiguous(memory_format=torch.channels_last)
    assert {p.dtype for p in wide.parameters()} == {torch.bfloat16} and not any(m.training for m in wide.modules())


def plain():
    return nets.CASES["plain"].model()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layers": "encoder.*"}, r"'encoder\.\*' matches no convolution or linear layer of Sequential"),
        ({"layers": "k>9"}, r"no convolution of Sequential has k>9; sides are \[3\]"),
        ({"layers": "1"}, "matches no convolution"),
        ({"layers": []}, "layers are named by patterns"),
        ({"layers": ["0", "!0"]}, "leaves no layer"),
        ({"skip_first": 2}, "leaves no layer"),
        ({"skip_first": -1}, "skip_first"),
        ({"rate": 0.5}, "the rate of an expansion is at least 1"),
        ({"rate": float("nan")}, "the rate of an expansion is at least 1"),
        ({"rate": "4"}, "rate must be a number, not '4'"),
        ({"kind": "kc"}, "unknown kind 'kc'; known: auto, cl, ck, fc"),
        ({"layers": "0", "kind": "ck"}, "0: ck takes square kernels of odd k > 3, and this one is 3 x 3: use cl"),
        ({"layers": "0", "kind": "fc"}, "0: fc expands linear layers, and this is a Conv2d"),
        ({"keep_function": True, "nonlinear": True}, "choose one of the two"),
    ],
)
def test_what_cannot_be_expanded_is_refused(arguments, message):
    with pytest.raises(EditError, match=message):
        prunus.expand(plain(), **arguments)


def test_near_names_are_told():
    model = nn.ModuleDict({"encoder": nn.ModuleDict({"first": nn.Linear(2, 2), "second": nn.Linear(2, 2)})})
    with pytest.raises(EditError, match=r"similar: encoder\.first"):
        prunus.expand(model, "encoder.frist")
    with pytest.raises(EditError, match=r"layers in it are encoder\.first, encoder\.second, .*write encoder\.\*"):
        prunus.expand(model, "encoder")
    with pytest.raises(EditError, match="wrapped in DataParallel"):
        prunus.expand(nn.DataParallel(model), "*")
    with pytest.raises(EditError, match=r"model must be a torch\.nn\.Module, not 'model'"):
        prunus.expand("model", "*")


def test_rules_globs_and_exceptions():
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 5), nn.Linear(2, 2))
    chosen = {
        ("k>1",): ["1", "2"],
        ("k = 3",): ["1"],
        ("k<=1", "3"): ["0", "3"],
        ("!k>=5",): ["0", "1", "3"],
        ("[01]",): ["0", "1"],
    }
    for layers, paths in chosen.items():
        assert [edit.layer.path for edit in prunus.expand(model, layers, 2)] == paths
    assert [edit.layer.path for edit in prunus.expand(model, "*", 2, skip_first=2)] == ["2", "3"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"widths": (2,)}, "cl has 2 widths between its factors"),
        ({"widths": (0, 3)}, "cl has 2 widths between its factors"),
        ({"kind": "xx"}, "unknown kind"),
        (
            {"widths": (2, 3)},
            r"through widths \[2, 3\] not every kernel of this shape can be computed; at least \[3, 8\]",
        ),
        ({"nonlinear": True}, "the function is not kept"),
    ],
)
def test_an_edit_made_wrong(change, message):
    model = plain()
    given = {"layer": layer_at("0", model[0]), "widths": (6, 16), "kind": "cl", "keep_function": True}
    before = nets.state(model)
    with pytest.raises(EditError, match=message):
        prunus.apply(ExpandLayer(**given | change), model)
    nets.assert_same_state(before, nets.state(model))


def test_a_plan_for_another_network_is_refused():
    model = plain()
    plan = prunus.expand(model, "*", 2)
    for other, message in (
        (nn.Sequential(nn.Conv2d(3, 9, 3)), r"0\.weight has shape \[9, 3, 3, 3\].*the plan is for \[8, 3, 3, 3\]"),
        (nn.Sequential(nn.Linear(3, 8)), "0 is a Linear, the plan is for a Conv2d"),
        (nn.Sequential(), "0: Sequential has no such module"),
        (prunus.apply(plan, model), "0 is a Factors, the plan is for a Conv2d"),
        (nn.Sequential(nn.Conv2d(12, 8, 3, groups=4)), ".*in 4 groups, the plan is for"),
    ):
        with pytest.raises(EditError, match=rf"edit 0 \(Expand\): {message}"):
            prunus.apply(plan, other)


def test_an_order_that_makes_no_sense_explains_itself():
    model = plain()
    wide = prunus.apply(prunus.expand(model, "0", 2), model)
    for function, arguments in (
        (prunus.expand, {}),
        (prunus.decompose, {"width": 3}),
        (prunus.factorize, {"rank": 1}),
    ):
        with pytest.raises(EditError, match=r"a factor of 0, which is expanded: contract 0 first"):
            function(wide, "0.factor1", **arguments)
    assert [edit.layer.path for edit in prunus.expand(wide, "k>1")] == ["3"]  # a rule passes it over


class Standardised(nn.Conv2d):
    def forward(self, x):
        return super().forward(x) + 1


@pytest.mark.parametrize(
    ("build", "path", "message"),
    [
        (lambda: nn.Sequential(Standardised(3, 4, 3)), "0", "Standardised computes something of its own"),
        (lambda: nn.Conv2d(3, 4, 3), "*", "the network itself"),
        (lambda: nn.MultiheadAttention(4, 2), "out_proj", "MultiheadAttention reads its weight itself"),
        (lambda: nn.TransformerEncoderLayer(4, 2), "linear1", "TransformerEncoderLayer reads its weight itself"),
        (lambda: nets.CASES["tied_layers"].build(), "first", "its parameters are also those of second"),
        (lambda: nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(2, 2))), "0", "a parametrisation"),
        (lambda: nn.Sequential(nn.Linear(2, 2, dtype=torch.complex64)), "0", "its weight is of torch.complex64"),
    ],
)
def test_layers_that_cannot_be_replaced(build, path, message):
    with pytest.raises(EditError, match=message):
        prunus.expand(build(), path)


def test_values_that_are_not_finite_are_refused():
    model = plain()
    with torch.no_grad():
        model[0].weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(EditError, match=r"0\.weight holds values that are not finite"):
        prunus.apply(prunus.expand(model, "0", keep_function=True), model)


def test_edits_that_build_on_each_other_in_one_plan():
    model, image = network(nn.Conv2d(3, 6, 5, padding=2))
    first = prunus.decompose(model, "1", rank=15)
    narrow = prunus.apply(first, model)
    second = prunus.expand(narrow, "1.factor0", 2, keep_function=True)
    wide = prunus.apply(second, narrow)
    plan = first + second + prunus.contract(wide)
    result = prunus.apply(plan, model)
    assert isinstance(result[1], Factors) and type(result[1].factor0) is nn.Conv2d
    assert_equal(model, result, image)
    step_by_step = model
    for edit in plan:
        step_by_step = edit.apply(step_by_step)
    assert difference(result, step_by_step, (image,))[0] == 0


def test_an_expanded_network_is_exported_fused_and_contracted(tmp_path):
    case = nets.CASES["residual"]
    model, inputs = case.model(torch.float32).eval(), case.inputs(torch.float32)
    wide = prunus.apply(prunus.expand(model, "*", 2, keep_function=True), model)
    path = prunus.export_onnx(wide, inputs, tmp_path / "wide.onnx")
    assert prunus.check_parity(wide, path, inputs).passed
    plan = prunus.fuse(wide, inputs)
    assert len(plan) == 2
    fused = prunus.apply(plan, wide)
    small = prunus.apply(prunus.contract(fused), fused)
    assert difference(model, small, inputs)[1] <= 1e-5
    assert not any(isinstance(part, Factors | nn.BatchNorm2d) for part in small.modules())
