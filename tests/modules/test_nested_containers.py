"""Trees keep the types of their containers, and are walked in the order in which torch walks them."""

import collections
import dataclasses
import types
from typing import Any, NamedTuple

import pytest
import torch
from torch.fx.immutable_collections import immutable_dict, immutable_list
from torch.utils._pytree import tree_leaves

from prunus.modules.tree import items, leaves, mapped


class Pair(NamedTuple):
    first: Any
    second: Any


@dataclasses.dataclass(frozen=True)
class Boxes:
    corners: Any
    scores: Any = None
    name: str = "boxes"


@dataclasses.dataclass
class Late:
    """A field that `__init__` does not set."""

    value: Any
    cache: Any = dataclasses.field(init=False, repr=False)


class Names(dict):
    """A dictionary of the user's own, which carries something else too."""

    def __init__(self, *arguments, title="none"):
        super().__init__(*arguments)
        self.title = title


def named(title):
    result = Names({"a": 1.5, "b": [2.5]})
    result.title = title
    return result


TREES = {
    "a list": [1.5, [2.5]],
    "a tuple": (1.5, (2.5, ())),
    "a named tuple": Pair(1.5, Pair(2.5, 3.5)),
    "a set": {1.5},
    "a dictionary": {"a": 1.5, 3: {"b": 2.5}},
    "an ordered dictionary": collections.OrderedDict([("b", 1.5), ("a", 2.5)]),
    "a default dictionary": collections.defaultdict(list, a=[1.5]),
    "a read-only mapping": types.MappingProxyType({"a": 1.5}),
    "a dictionary of one's own": named("mine"),
    "torch.fx's": immutable_dict({"a": immutable_list([1.5])}),
    "a frozen dataclass": Boxes(1.5, [2.5]),
    "a dataclass with a field unset": Late(1.5),
    "what topk returns": torch.tensor([1.5, 2.5]).topk(1),
    "nothing": [],
}


@pytest.mark.parametrize("tree", TREES.values(), ids=TREES)
def test_a_mapped_tree_has_the_same_containers_and_the_tree_stays(tree):
    before = repr(tree)
    new = mapped(lambda leaf: leaf if isinstance(leaf, str) else leaf + 1, tree)
    assert type(new) is type(tree) and repr(tree) == before
    for old, leaf in zip(leaves(tree), leaves(new), strict=True):
        assert leaf == (old if isinstance(old, str) else old + 1)
    if items(tree):
        assert [key for key, _ in items(new)] == [key for key, _ in items(tree)] or isinstance(tree, set)
        assert all(type(a) is type(b) for (_, a), (_, b) in zip(items(tree), items(new), strict=True))


def test_what_a_mapping_carries_beside_its_entries_is_kept():
    assert mapped(lambda leaf: leaf, named("mine")).title == "mine"
    assert mapped(lambda leaf: leaf, collections.defaultdict(list, a=[1]))["new"] == []


def test_the_outputs_of_transformers_keep_their_class_and_their_attributes():
    outputs = pytest.importorskip("transformers.modeling_outputs")
    output = outputs.BaseModelOutput(last_hidden_state=torch.ones(2), hidden_states=(torch.zeros(1), torch.ones(1)))
    doubled = mapped(lambda tensor: tensor.double(), output)
    assert type(doubled) is outputs.BaseModelOutput and doubled.last_hidden_state.dtype == torch.float64
    assert doubled["hidden_states"][1].dtype == torch.float64 and doubled.attentions is None
    assert output.last_hidden_state.dtype == torch.float32


def test_sizes_become_a_tuple_where_their_items_are_no_numbers():
    assert mapped(str, torch.Size([2, 3])) == ("2", "3")
    assert type(mapped(lambda size: size + 1, torch.Size([2, 3]))) is torch.Size


def test_leaves_come_in_torchs_order():
    tree = (torch.ones(1), {"b": [1, 2], "a": Pair(3, (4,))}, collections.OrderedDict(z=5, y=6))
    assert list(leaves(tree))[1:] == tree_leaves(tree)[1:]


def test_a_container_inside_itself_ends():
    tree = [1]
    tree.append(tree)
    assert list(leaves(tree)) == [1]
    shared = [2]
    assert list(leaves([shared, shared])) == [2, 2]


def test_tensors_and_modules_are_leaves():
    @dataclasses.dataclass(eq=False)
    class Net(torch.nn.Module):
        width: int

        def __post_init__(self):
            super().__init__()

    net, tensor = Net(3), torch.ones(2)
    assert list(leaves({"net": net, "tensor": tensor})) == [net, tensor]
