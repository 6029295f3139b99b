"""contract: layers in a row are one, exactly, or refused with the place."""

import itertools

import nets
import pytest
import torch
from drawn_layers import TOLERANCES, assert_equal
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import prunus
from prunus.errors import EditError
from prunus.surgery import ContractLayers, Factors
from prunus.surgery.layers import layer_at


def pairs(draw, low, high):
    return tuple(draw(st.integers(low, high)) for _ in range(2))


@st.composite
def chains(draw):
    """Two or three convolutions that contract: all padding on the first, any groups, strides, dilation, biases."""
    number = draw(st.sampled_from([2, 2, 3]))
    groups = [draw(st.sampled_from([1, 2, 4])) for _ in range(number)]
    widths = [4 * draw(st.integers(1, 2)) for _ in range(number + 1)]
    mode = draw(st.sampled_from(["zeros", "zeros", "reflect", "replicate", "circular"]))
    layers = []
    for at, (inner, outer) in enumerate(itertools.pairwise(widths)):
        layers.append(
            nn.Conv2d(
                inner,
                outer,
                pairs(draw, 1, 3),
                stride=pairs(draw, 1, 2),
                padding=pairs(draw, 0, 2) if at == 0 else 0,
                dilation=pairs(draw, 1, 2),
                groups=groups[at],
                bias=draw(st.booleans()),
                padding_mode=mode if at == 0 else "zeros",
            )
        )
    return layers


@st.composite
def transposed_chains(draw):
    """1 x 1 without a bias, a kernel that spreads, one or two more that follow."""
    groups = draw(st.sampled_from([1, 2]))
    bias = draw(st.booleans())
    kernel, stride = pairs(draw, 1, 3), pairs(draw, 1, 3)
    padding = tuple(draw(st.integers(0, (size - 1) // 2)) for size in kernel)
    core = nn.ConvTranspose2d(6, 4, kernel, stride, padding, bias=bias, groups=groups)
    last = nn.Conv2d(4, 3, 1, bias=draw(st.booleans()))
    return [nn.Conv2d(2, 6, 1, bias=False), core, last][draw(st.integers(0, 1)) :]


def randomised_chain(layers, dtype):
    model = nets.randomised(nn.Sequential(*layers, nn.Tanh()), 0).to(dtype) if layers else None
    image = torch.randn(2, layers[0].in_channels, 32, 31, dtype=dtype, generator=torch.Generator().manual_seed(1))
    return model, image


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@given(layers=chains() | transposed_chains())
@settings(max_examples=50, deadline=None)
def test_a_chain_is_one_layer(layers, dtype):
    model, image = randomised_chain(layers, dtype)
    wrapped = nn.Sequential(model)
    plan = prunus.contract(wrapped, "0")
    assert prunus.Plan.from_json(plan.to_json()) == plan
    small = prunus.apply(plan, wrapped)
    kinds = [type(part) for part in small[0]]
    assert kinds[1:] == [nn.Identity] * (len(layers) - 1) + [nn.Tanh]
    with torch.no_grad():
        linear, contracted = model[:-1](image), small[0][:-1](image)
    assert linear.shape == contracted.shape
    assert (linear - contracted).abs().max() <= TOLERANCES[dtype] * linear.abs().max()


@given(widths=st.lists(st.integers(1, 6), min_size=3, max_size=5), data=st.data())
@settings(max_examples=40, deadline=None)
def test_linear_layers(widths, data):
    layers = [nn.Linear(a, b, bias=data.draw(st.booleans())) for a, b in itertools.pairwise(widths)]
    model = nets.randomised(nn.Sequential(nn.Sequential(*layers), nn.Tanh()), 0).double()
    small = prunus.apply(prunus.contract(model, "0"), model)
    assert_equal(model, small, torch.randn(3, widths[0], dtype=torch.float64))
    assert small[0][0].weight.shape == (widths[-1], widths[0])


def test_padding_behind_a_kernel_of_one_moves_to_the_front():
    """3 x 1 padded along the height, then 1 x 3 padded along the width, without a bias between."""
    layers = [
        nn.Conv2d(3, 4, (3, 1), padding=(1, 0), stride=(2, 1), bias=False),
        nn.Conv2d(4, 5, (1, 3), padding=(0, 2), stride=(1, 3)),
    ]
    model, image = randomised_chain(layers, torch.float64)
    small = prunus.apply(prunus.contract(nn.Sequential(model), "0"), nn.Sequential(model))
    assert small[0][0].padding == (1, 2) and small[0][0].stride == (2, 3)
    assert_equal(nn.Sequential(model), small, image)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 1)], r"m\.1 is between them \(ReLU\)"),
        ([nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 5, 1)], r"m\.1 is between them \(BatchNorm2d\)"),
        ([nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3, padding=1)], r"m\.1 behind m\.0: it pads .* after a kernel"),
        ([nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 3, padding=1)], r"m\.1 behind m\.0: it pads .* after a bias"),
        ([nn.Conv2d(3, 4, 1), nn.Conv2d(6, 5, 3)], "do not fit each other"),
        ([nn.Conv2d(3, 4, 1), nn.Linear(4, 5)], "do not fit each other"),
        ([nn.Conv2d(3, 4, 1), nn.ConvTranspose2d(4, 5, 2)], "a bias before a transposed kernel"),
        ([nn.Conv2d(3, 4, 3), nn.ConvTranspose2d(4, 5, 2)], "neither of them 1x1"),
        ([nn.ConvTranspose2d(3, 4, 3, padding=1, bias=False), nn.ConvTranspose2d(4, 5, 2)], "the first crops"),
        (
            [
                nn.Conv2d(3, 4, (3, 1), padding=(1, 0), bias=False, padding_mode="reflect"),
                nn.Conv2d(4, 5, (1, 3), padding=(0, 1)),
            ],
            "one pads with reflect",
        ),
        ([nn.Conv2d(3, 4, 3)], "no two linear layers"),
        ([nn.utils.parametrizations.weight_norm(nn.Linear(3, 3)), nn.Linear(3, 3)], "a parametrisation"),
        ([nn.LazyLinear(3), nn.Linear(3, 3)], "lazy"),
    ],
)
def test_what_is_no_single_layer_is_refused_with_its_place(layers, message):
    model = nn.ModuleDict({"m": nn.Sequential(*layers)})
    with pytest.raises(EditError, match=message):
        prunus.contract(model, "m")


def expanded_pair():
    model = nn.ModuleDict({"m": nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))})
    return prunus.apply(prunus.expand(model, "*", 2), model)


def test_a_network_that_is_a_row_of_layers_is_named_by_its_empty_path():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3), nn.ReLU(), nn.Conv2d(5, 2, 1)).double()
    plan = prunus.contract(model, "")
    assert [[factor.path for factor in edit.factors] for edit in plan] == [["0", "1"]]
    assert_equal(model, prunus.apply(plan, model), torch.randn(1, 3, 8, 8, dtype=torch.float64))


def test_names_that_are_wrong():
    model = nn.ModuleDict({"m": nn.Sequential(nn.Linear(3, 3), nn.ReLU())})
    with pytest.raises(EditError, match="nothing in ModuleDict was expanded"):
        prunus.contract(model)
    assert not [edit for edit in prunus.contract(expanded_pair(), "*") if edit.path == "m"]  # a glob names our own only
    with pytest.raises(EditError, match=r"'nowhere' matches nothing that can be contracted.*available: m"):
        prunus.contract(model, "nowhere")


def test_a_layer_used_twice_is_not_contracted():
    shared = nn.Linear(3, 3)
    model = nn.Sequential(nn.Sequential(shared, nn.Linear(3, 3)), shared)
    with pytest.raises(EditError, match=r"0\.0 is also used as 1"):
        prunus.apply(prunus.contract(model, "0"), model)
    tied = nn.Sequential(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)), nn.Linear(3, 3))
    tied[1].weight = tied[0][0].weight
    with pytest.raises(EditError, match="its parameters are also those of 1"):
        prunus.contract(tied, "0")


def test_an_edit_for_other_factors_is_refused():
    model = nn.Sequential(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 5), nn.Linear(5, 2)))
    first, second, third = (layer_at(f"0.{number}", model[0][number]) for number in range(3))
    assert prunus.apply(ContractLayers(path="0", factors=(first, second)), model)[0][0].out_features == 5
    for factors, message in (
        ((first,), "at least two"),
        ((first, third), "do not follow each other"),
        ((second, first), "do not follow each other"),
        ((first, layer_at("0.1", nn.Linear(4, 6))), "made for another network"),
    ):
        with pytest.raises(EditError, match=message):
            prunus.apply(ContractLayers(path="0", factors=factors), model)
    with pytest.raises(EditError, match="no such module"):
        prunus.apply(ContractLayers(path="9", factors=(first, second)), model)
    with pytest.raises(EditError, match="the order of its layers is not known"):
        prunus.apply(ContractLayers(path="0.0", factors=(first, second)), model)


def test_only_what_was_expanded_is_contracted_unless_it_is_named():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3, padding=1)).double()
    narrow = prunus.apply(prunus.decompose(model, "0", rank=9), model)
    wide = prunus.apply(prunus.expand(narrow, ["0.factor1", "2"], 2, keep_function=True), narrow)
    plan = prunus.contract(wide)
    assert [edit.path for edit in plan] == ["0.factor1", "2"]
    back = prunus.apply(plan, wide)
    assert type(back[0]) is Factors and type(back[2]) is nn.Conv2d
    image = torch.randn(1, 3, 8, 8, dtype=torch.float64)
    assert_equal(model, back, image)
    whole = prunus.apply(prunus.contract(wide, "0"), wide)  # factors of factors
    assert type(whole[0]) is nn.Conv2d and type(whole[2]) is Factors
    assert_equal(model, whole, image)
