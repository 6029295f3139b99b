"""Attention in its common spellings: heads are cut evenly, attributes follow, what is computed otherwise is refused."""

import pytest
import torch
from idioms import FusedAttention, RigidAttention, SelfAttention, WindowAttention, Wrapped, check, reasons, tokens
from torch import nn

import prunus
from prunus.surgery.removal import removal


@pytest.mark.parametrize(("scaled", "exact", "approximate"), [(True, 12 + 4 + 12, 0), (False, 12 + 12, 4)])
def test_head_sizes_are_cut_evenly_and_their_attributes_follow(scaled, exact, approximate):
    model = Wrapped(FusedAttention(12, 3, 4, scaled=scaled), 12)
    groups = check(model, tokens(), exact=exact)
    assert int((groups.removable & ~groups.exact).sum()) == approximate
    assert {(one.path, one.name) for one in groups.attributes} == {("inside", "head_dim"), ("inside", "inner")}


@pytest.mark.parametrize("scaled", [True, False])
def test_whole_heads_go_and_their_number_follows(scaled):
    groups = check(Wrapped(FusedAttention(12, 3, 4, scaled=scaled), 12), tokens(), exact=12 + 3 + 12, whole_heads=True)
    assert {(one.path, one.name) for one in groups.attributes} == {("inside", "num_heads"), ("inside", "inner")}
    assert bool(groups.exact[groups.attributes[0].groups].all())


@pytest.mark.parametrize(("whole_heads", "name", "exact"), [(True, "num_heads", 3), (False, "head_dim", 4)])
def test_windows_with_a_relative_bias_lose_heads_or_their_sizes(whole_heads, name, exact):
    model = Wrapped(WindowAttention(12, 3, 4), 12)
    groups = check(model, torch.randn(2, 6, 12), exact=12 + exact + 12, whole_heads=whole_heads)
    assert {one.name for one in groups.attributes} == {name}


def test_heads_then_sizes_on_what_is_left():
    model = Wrapped(FusedAttention(12, 3, 4, scaled=True), 12).eval()
    for whole_heads in (True, False):
        groups = prunus.trace(model, tokens(), whole_heads=whole_heads)
        one = next(one for one in groups.attributes if one.name in ("num_heads", "head_dim"))
        chosen = torch.zeros(len(groups), dtype=torch.bool)
        chosen[one.groups[:1]] = True
        model = prunus.apply(removal(groups, chosen), model)
    assert (model.inside.num_heads, model.inside.head_dim) == (2, 3)
    assert model.inside.qkv.out_features == 3 * 2 * 3
    assert model(tokens()).shape == (2, 5, 2)


def test_a_default_scale_makes_queries_and_keys_approximate():
    groups = check(Wrapped(FusedAttention(12, 3, 4, scaled=False), 12), tokens())
    assert "the default scale 1 / sqrt(size of a head) changes" in reasons(groups)


def test_attributes_are_part_of_the_plan_and_survive_json():
    model = Wrapped(FusedAttention(12, 3, 4, scaled=True), 12).eval()
    groups = prunus.trace(model, tokens())
    head = next(one for one in groups.attributes if one.name == "head_dim").groups[:1]
    chosen = torch.zeros(len(groups), dtype=torch.bool)
    chosen[head] = True
    plan = prunus.Plan.from_json(removal(groups, chosen).to_json())
    small = prunus.apply(plan, model)
    assert (small.inside.head_dim, small.inside.inner, model.inside.head_dim) == (3, 9, 4)
    assert small.inside.qkv.out_features == 27
    assert small(tokens()).shape == (2, 5, 2)


def test_head_sizes_computed_from_the_input_are_refused_with_the_line():
    groups = check(Wrapped(RigidAttention(12, 3), 12), tokens(), exact=12)
    assert "has its size" in reasons(groups) and "idioms.py:" in reasons(groups)


@pytest.mark.parametrize(
    ("layer", "exact"),
    [(lambda: SelfAttention(12), 0), (lambda: nn.TransformerEncoderLayer(12, 3, 24, batch_first=True), 24)],
    ids=["MultiheadAttention", "TransformerEncoderLayer"],
)
def test_torchs_own_attention_keeps_its_sizes(layer, exact):
    groups = check(Wrapped(layer(), 12), tokens(), exact=exact)
    assert "torch's MultiheadAttention keeps its sizes" in reasons(groups)


class Alike(nn.Module):
    """As many heads as channels a head: two attributes of one value, both in the code's line."""

    def __init__(self):
        super().__init__()
        self.num_heads = self.head_dim = 4
        self.query, self.key, self.value = (nn.Linear(12, 16) for _ in range(3))
        self.last = nn.Linear(16, 2)

    def forward(self, x):
        split = [
            layer(x).view(*x.shape[:2], self.num_heads, self.head_dim) for layer in (self.query, self.key, self.value)
        ]
        query, key, value = (part.transpose(1, 2) for part in split)
        return self.last(((query @ key.mT).softmax(-1) @ value).transpose(1, 2).flatten(2))


@pytest.mark.parametrize(("whole_heads", "name"), [(False, "head_dim"), (True, "num_heads")])
def test_attributes_of_one_value_are_told_apart_by_their_order(whole_heads, name):
    groups = check(Alike(), tokens(), exact=4, whole_heads=whole_heads)
    assert [one.name for one in groups.attributes] == [name]


class Computed(nn.Module):
    """Attention whose heads are as many as each is wide: their number is an attribute, or two attributes are read
    before the line, and the size of a head is computed, or kept."""

    def __init__(self, form, heads=4):
        super().__init__()
        self.heads, self.size, self.form = heads, heads, form
        self.query, self.key, self.value = (nn.Linear(12, heads * heads) for _ in range(3))
        self.last = nn.Linear(heads * heads, 2)

    def parts(self, x):
        b, n, c = x.shape
        if self.form == "computed":
            return x.reshape(b, n, self.heads, c // self.heads).transpose(1, 2)
        if self.form == "inferred":
            return x.reshape(b, n, self.heads, -1).transpose(1, 2)
        heads, size = self.heads, self.size
        return x.reshape(b, n, heads, size).transpose(1, 2)

    def forward(self, x):
        query, key, value = (self.parts(layer(x)) for layer in (self.query, self.key, self.value))
        y = ((query @ key.mT * 0.1).softmax(-1) @ value).transpose(1, 2)
        return self.last(y.reshape(*x.shape[:2], y.shape[2] * y.shape[3]))


@pytest.mark.parametrize("form", ["computed", "inferred", "kept"])
@pytest.mark.parametrize("whole_heads", [False, True])
def test_as_many_heads_as_a_head_is_wide(form, whole_heads):
    groups = check(Computed(form), tokens(), exact=4 if whole_heads or form == "kept" else 8, whole_heads=whole_heads)
    names = {one.name for one in groups.attributes}
    assert names == ({"heads"} if whole_heads else {"size"} if form == "kept" else set())
