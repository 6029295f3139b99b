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


class Memory(nn.Module):
    """torch's own attention to other tokens, of the same size or of sizes of their own."""

    def __init__(self, size, key_size, value_size):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(12, each) for each in (size, key_size, value_size))
        sizes = {} if key_size == value_size == size else {"kdim": key_size, "vdim": value_size}
        self.attention = nn.MultiheadAttention(size, 2, batch_first=True, **sizes)

    def forward(self, x):
        return self.attention(self.query(x), self.key(x), self.value(x), need_weights=self.training)[0]


LAYERS = {  # name -> the layer, groups that go exactly, groups at all
    "self": (lambda: SelfAttention(12), 12, 16),  # those that come out go by themselves
    "encoder": (lambda: nn.TransformerEncoderLayer(12, 3, 24, batch_first=True), 24, 28),
    "other tokens": (lambda: Memory(12, 12, 12), 24, 30),
    "other sizes": (lambda: Memory(12, 5, 7), 36, 42),
}


@pytest.mark.parametrize(("layer", "exact", "removable"), LAYERS.values(), ids=LAYERS)
def test_torchs_own_attention_is_as_wide_as_its_input(layer, exact, removable):
    model = Wrapped(layer(), 12)
    groups = check(model, tokens(), exact=exact)
    assert int(groups.removable.sum()) == removable
    small = prunus.apply(
        prunus.select(model, groups, budget=prunus.Budget(params=0.6, approximate=True)), model
    ).float()
    attention = next(module for module in small.modules() if isinstance(module, nn.MultiheadAttention))
    assert attention.embed_dim == attention.head_dim * attention.num_heads < 12
    assert small(tokens()).shape == (2, 5, 2)


def test_more_heads_than_channels_a_head_keep_their_sizes():
    class Many(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(12, 6, batch_first=True)

        def forward(self, x):
            return self.attention(x, x, x)[0]

    assert "not divisible by num_heads" in reasons(check(Wrapped(Many(), 12), tokens()))


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
