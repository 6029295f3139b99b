"""A plan that is wrong raises EditError naming the edit, and never changes the model."""

import dataclasses
import functools
import json

import nets
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import prunus
from prunus.errors import EditError
from prunus.penalties.zeros import zero_
from prunus.surgery import Cut, RemoveChannels

NAMES = ("residual", "grouped", "transposed_grouped", "depthwise_multiplier", "tied_layers", "attention")


@functools.cache
def example(name):
    """Return a network, a plan that fits it, and inputs; nobody changes them."""
    case = nets.CASES[name]
    model, inputs = case.model(), case.inputs()
    groups = prunus.trace(model, inputs)
    chosen = groups.exact.clone()
    chosen[groups.exact.nonzero().flatten()[::2]] = False
    zero_(model, groups, chosen)
    return model, prunus.select(model, groups), inputs


def another_path(cut, draw):
    return dataclasses.replace(cut, path=cut.path + draw(st.sampled_from(["x", ".weight", ".parts.0"])))


def another_dim(cut, draw):
    return dataclasses.replace(cut, dim=draw(st.sampled_from([-1, 4, 5, 100])))


def another_size(cut, draw):
    return dataclasses.replace(cut, size=cut.size + draw(st.sampled_from([-1, 1, 1000])))


def index_outside(cut, draw):
    return dataclasses.replace(cut, remove=(*cut.remove, cut.size + draw(st.integers(0, 5))))


def index_negative(cut, draw):
    return dataclasses.replace(cut, remove=(draw(st.integers(-9, -1)), *cut.remove))


def index_twice(cut, draw):
    return dataclasses.replace(cut, remove=(*cut.remove, cut.remove[-1]))


def index_all(cut, draw):
    return dataclasses.replace(cut, remove=tuple(range(cut.size)))


def index_none(cut, draw):
    return dataclasses.replace(cut, remove=())


FAULTS = (another_path, another_dim, another_size, index_outside, index_negative, index_twice, index_all, index_none)


def assert_refused(plan, model, match):
    before = nets.state(model)
    with pytest.raises(EditError, match=match):
        prunus.apply(plan, model)
    nets.assert_same_state(before, nets.state(model))


@given(name=st.sampled_from(NAMES), fault=st.sampled_from(FAULTS), data=st.data())
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_one_cut_made_wrong(name, fault, data):
    model, plan, _ = example(name)
    cuts = list(plan.edits[0].cuts)
    place = data.draw(st.integers(0, len(cuts) - 1))
    cuts[place] = fault(cuts[place], data.draw)
    wrong = prunus.Plan((RemoveChannels(cuts=tuple(cuts)),))
    assert_refused(wrong, model, r"edit 0 \(RemoveChannels\)")
    assert_refused(prunus.Plan.from_json(wrong.to_json()), model, r"edit 0 \(RemoveChannels\)")
    assert_refused(prunus.Plan() + plan + wrong, model, r"edit 1 \(RemoveChannels\)")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"before": 99}, "the plan is for 99: it was made for another network"),
        ({"after": 0}, "would become 0"),
        ({"name": "nothing"}, "no such attribute"),
        ({"path": "nowhere"}, "no such attribute"),
        ({"item": 3}, "no such attribute"),
        ({"name": "forward"}, "the plan is for"),
    ],
)
def test_an_attribute_made_wrong(change, message):
    model, plan, _ = example("attention")
    edit = plan.edits[0]
    wrong = tuple(dataclasses.replace(one, **change) for one in edit.attributes)
    assert wrong
    assert_refused(prunus.Plan((dataclasses.replace(edit, attributes=wrong),)), model, message)


def test_the_attributes_follow_the_channels():
    model, plan, _ = example("attention")
    assert {one.name for one in plan.edits[0].attributes} >= {"head_size"}
    small = prunus.apply(plan, model)
    assert small[1].head_size * small[1].num_heads * 3 == small[1].qkv.weight.shape[0] < 24
    assert model[1].head_size == 4


@given(name=st.sampled_from(NAMES), data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_cut_left_out_or_said_twice(name, data):
    """Tensors of one layer no longer fit each other: refused, or the network says so when it runs; never silent."""
    model, plan, inputs = example(name)
    cuts = list(plan.edits[0].cuts)
    place = data.draw(st.integers(0, len(cuts) - 1))
    assert_refused(prunus.Plan((RemoveChannels(cuts=(*cuts, cuts[place])),)), model, "is cut twice")
    before = nets.state(model)
    try:
        small = prunus.apply(RemoveChannels(cuts=(*cuts[:place], *cuts[place + 1 :])), model)
    except EditError as error:
        assert "edit 0 (RemoveChannels)" in str(error)
    else:
        with pytest.raises((RuntimeError, ValueError)):
            small.eval()(*inputs)
    nets.assert_same_state(before, nets.state(model))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("other", NAMES)
def test_the_plan_of_another_network(name, other):
    if name == other:
        model, plan, _ = example(name)
        assert_refused(plan + plan, model, r"edit 1 \(RemoveChannels\).*made for another network")
    else:
        assert_refused(example(other)[1], example(name)[0], r"edit 0 \(RemoveChannels\)")


values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 9) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def places(data, path=()):
    """Yield the path of every value in JSON."""
    yield path
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


def same_type(first, second):
    if isinstance(first, list) and isinstance(second, list):
        return all(type(item) is int for item in (*first, *second))  # other indices may well be a plan
    return type(first) is type(second) and not isinstance(first, dict)


@given(data=st.data(), value=values)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_json_with_a_value_of_another_type(data, value):
    model, plan, _ = example("residual")
    written = json.loads(plan.to_json())
    path = data.draw(st.sampled_from(list(places(written))[1:]))
    where = written
    for key in path[:-1]:
        where = where[key]
    if same_type(where[path[-1]], value) or (isinstance(value, list) and not value):
        return
    where[path[-1]] = value
    before = nets.state(model)
    with pytest.raises(EditError):
        prunus.apply(prunus.Plan.from_json(json.dumps(written)), model)
    nets.assert_same_state(before, nets.state(model))


@given(st.text(max_size=40))
@settings(max_examples=100, deadline=None)
def test_text_that_is_no_plan(text):
    with pytest.raises(EditError):
        prunus.Plan.from_json(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "a plan is JSON"),
        ('{"format": 2, "edits": []}', "a plan looks like"),
        ('{"format": 1, "edits": [3]}', 'edit 0: an edit is an object with a field "edit"'),
        ('{"format": 1, "edits": [{"edit": "Paint"}]}', "edit 0: unknown edit 'Paint'; known:"),
        (
            '{"format": 1, "edits": [{"edit": "RemoveChannels"}]}',
            "edit 0 .RemoveChannels.: the field 'cuts' is missing",
        ),
        ('{"format": 1, "edits": [{"edit": "RemoveChannels", "cuts": [], "x": 1}]}', "unknown field 'x'"),
        ('{"format": 1, "edits": [{"edit": "RemoveChannels", "cuts": [{"path": 3}]}]}', r"cuts\[0\]"),
    ],
)
def test_messages(text, message):
    with pytest.raises(EditError, match=message):
        prunus.Plan.from_json(text)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated:FutureWarning")
def test_a_model_that_cannot_be_copied():
    model = torch.nn.utils.weight_norm(torch.nn.Linear(2, 2))
    with pytest.raises(EditError, match="Linear cannot be copied"):
        prunus.apply(prunus.Plan(), model)


def test_an_edit_that_fails_half_way_leaves_the_model():
    model, plan, _ = example("residual")

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Fails(prunus.surgery.Edit):
        exact = False

        def apply(self, model):
            raise ZeroDivisionError("here")

        def summary(self):
            return "fails"

        def carry(self, path, tensor):
            return tensor

    assert_refused(plan + prunus.Plan((Fails(),)), model, r"edit 1 \(Fails\) failed: ZeroDivisionError: here")
    with pytest.raises(EditError, match="takes a plan"):
        prunus.apply("plan", model)
    with pytest.raises(EditError, match="takes a"):
        prunus.apply(plan, "model")
    with pytest.raises(EditError):
        prunus.apply(RemoveChannels(cuts=(Cut(path=3, dim="a", size=None, remove=(0,)),)), model)
    assert torch.is_tensor(next(model.parameters()))
