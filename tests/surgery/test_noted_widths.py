"""Widths that a network notes and no code reads: they follow the channels, or the plan names them."""

import dataclasses

import pytest
import torch
from torch import nn

import prunus
from prunus.errors import EditError
from prunus.surgery.removal import removal, spare_layers


@dataclasses.dataclass(frozen=True)
class Config:
    """What the network is built from."""

    hidden_size: int
    embed_dims: tuple[int, ...] = ()
    image_size: int = 24
    labels: dict = dataclasses.field(default_factory=dict)


class Net(nn.Module):
    """A backbone of 16 and 24 channels and a classifier, with what other code asks it for."""

    def __init__(self, **more) -> None:
        super().__init__()
        self.stem, self.body = nn.Conv2d(3, 16, 3, padding=1), nn.Sequential(nn.ReLU(), nn.Conv2d(16, 24, 3, padding=1))
        self.head = nn.Linear(24, 4)
        vars(self).update(more)

    def forward(self, x):
        return self.head(self.body(torch.relu(self.stem(x))).mean((2, 3)))


def cut(model, **layers):
    """Return the plan that removes the first channels of layers, so many of each, and the smaller network."""
    groups = prunus.trace(model, torch.randn(2, 3, 8, 8))
    chosen = torch.zeros(len(groups), dtype=torch.bool)
    for name, number in layers.items():
        members = (groups.layers == groups.layer_names.index(name.replace("_", "."))).nonzero().flatten()
        chosen[members[:number]] = True
    plan = removal(groups, spare_layers(groups, chosen))
    return plan, prunus.apply(plan, model)


def test_what_a_classifier_reads_follows_so_that_a_new_one_fits():
    model = Net(num_features=24, _out_channels=[16, 24], embed_dim=(16, 24), out_channels={"p2": 24})
    plan, small = cut(model, body_1=10)
    assert small.num_features == 14 and model.num_features == 24 and small.out_channels == {"p2": 14}
    assert small._out_channels == [16, 14] and small.embed_dim == (16, 14) and model._out_channels == [16, 24]
    small.head = nn.Linear(small.num_features, 7)
    assert small(torch.randn(1, 3, 8, 8)).shape == (1, 7)
    assert not plan.notes and prunus.Plan.from_json(plan.to_json()) == plan


def test_numbers_beside_the_name_of_a_module_follow_what_it_returns():
    info = [{"num_chs": 16, "reduction": 1, "module": "stem"}, {"num_chs": 24, "reduction": 8, "module": "body"}]
    model = Net(feature_info=info, extra=nn.Conv2d(24, 24, 1))
    plan, small = cut(model, stem=6, body_1=4)
    assert [each["num_chs"] for each in small.feature_info] == [10, 20]
    assert [each["reduction"] for each in small.feature_info] == [1, 8] and info[0]["num_chs"] == 16
    assert not plan.notes


def test_a_configuration_follows_where_all_of_a_size_agree():
    model = Net(config=Config(hidden_size=24, embed_dims=(16, 24)))
    model.head.config = model.config  # as every part of a transformers network keeps it
    _, small = cut(model, stem=2, body_1=8)
    assert small.config == Config(hidden_size=16, embed_dims=(14, 16))
    assert small.head.config is small.config and model.config.hidden_size == 24
    assert small.config.image_size == 24  # as large as a width, and called otherwise


class Residual(Net):
    """Two dimensions of 24 channels that are cut by themselves."""

    def __init__(self, **more) -> None:
        super().__init__(**more)
        self.body = nn.Sequential(nn.ReLU(), nn.Conv2d(16, 24, 1), nn.ReLU(), nn.Conv2d(24, 24, 1))


def test_what_may_count_one_or_another_is_named():
    plan, small = cut(Residual(config=Config(hidden_size=24), planes=24, numbers={"a": 24}), body_1=10, body_3=4)
    assert small.config.hidden_size == 24 and small.planes == 24
    (note,) = plan.notes
    assert note in str(plan)
    for name in ("config.hidden_size 24 (now 14 or 20)", "planes 24 (now 14 or 20)", "numbers.a 24"):
        assert name in note
    assert "image_size" not in note
    assert prunus.Plan(plan.edits) == plan  # and say nothing of what is done


def test_an_equal_number_that_nothing_calls_a_width_is_named_even_where_all_agree():
    plan, small = cut(Net(size_of_it=24), body_1=10)
    assert small.size_of_it == 24 and "size_of_it 24 (now 14)" in plan.notes[0]


def test_copies_of_weights_that_no_code_reads_are_named():
    model = Net()
    model.register_buffer("average", model.stem.weight.detach().clone())
    plan, small = cut(model, stem=6)
    assert small.average.shape[0] == 16 and "average 16 (now 10)" in plan.notes[0]
    assert not cut(model, body_1=4)[0].notes


class Block(nn.Module):
    """Takes and returns 16 channels, by way of as many of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.in_chs, self.out_chs = 16, 16
        self.first, self.second = nn.Conv2d(16, 16, 1), nn.Conv2d(16, 16, 1)

    def forward(self, x):
        return self.second(torch.relu(self.first(x)))


def test_what_a_module_takes_and_returns_is_told_apart():
    model = nn.Sequential(nn.Conv2d(3, 16, 1), nn.ReLU(), Block(), nn.ReLU(), nn.Conv2d(16, 4, 1))
    groups = prunus.trace(model, torch.randn(1, 3, 8, 8))
    chosen = torch.zeros(len(groups), dtype=torch.bool)
    for name, number in (("0", 3), ("2.first", 5), ("2.second", 7)):
        chosen[(groups.layers == groups.layer_names.index(name)).nonzero().flatten()[:number]] = True
    plan = removal(groups, chosen)
    small = prunus.apply(plan, model)
    assert (small[2].in_chs, small[2].out_chs) == (13, 9) and not plan.notes


@pytest.mark.parametrize("name", ["config.image_size", "config.nothing", "config.labels.a", "head.in_features"])
def test_a_plan_sets_no_other_number(name):
    plan, _ = cut(Net(config=Config(hidden_size=24, labels={"a": 24})), body_1=4)
    (edit,) = plan.edits
    (known,) = edit.attributes
    forged = dataclasses.replace(edit, attributes=(dataclasses.replace(known, name=name),))
    with pytest.raises(EditError, match=r"no such attribute|not a number of channels"):
        prunus.apply(forged, Net(config=Config(hidden_size=24, labels={"a": 24})))


def test_a_saved_network_has_its_numbers_when_it_is_loaded(tmp_path):
    plan, small = cut(Net(num_features=24), body_1=10)
    prunus.save(tmp_path / "net", small, plan)
    assert prunus.load(tmp_path / "net", lambda: Net(num_features=24)).num_features == 14
