import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prunus.graph.ids import NONE, ChannelIds


def naive_classes(count, pairs):
    """Return the smallest member of each id's class: relabel until nothing changes."""
    label = list(range(count))
    changed = True
    while changed:
        changed = False
        for a, b in pairs:
            if NONE not in (a, b) and label[a] != label[b]:
                low, high = sorted((label[a], label[b]))
                label = [low if value == high else value for value in label]
                changed = True
    return label


@st.composite
def problems(draw):
    count = draw(st.integers(1, 40))
    ids = st.integers(0, count)
    batches = draw(st.lists(st.lists(st.tuples(ids, ids), max_size=12), max_size=6))
    return count, batches


@given(problems())
@settings(max_examples=300, deadline=None)
def test_classes_equal_a_naive_union_find(problem):
    count, batches = problem
    found = ChannelIds()
    found.new(count)
    for batch in batches:
        columns = torch.tensor(batch, dtype=torch.long).reshape(-1, 2)
        found.unite(columns[:, 0], columns[:, 1])
    assert found.classes().tolist() == naive_classes(count + 1, [pair for batch in batches for pair in batch])


def test_none_unites_nothing():
    ids = ChannelIds()
    first, second = ids.new(2), ids.new(2)
    ids.unite(first, torch.full((2,), NONE))
    ids.unite(torch.full((2,), NONE), second)
    assert ids.classes().tolist() == [0, 1, 2, 3, 4]


def test_a_long_chain_is_one_class():
    ids = ChannelIds()
    chain = ids.new(20_000)
    shuffled = torch.randperm(19_999, generator=torch.Generator().manual_seed(0))
    ids.unite(chain[1:][shuffled], chain[:-1][shuffled])
    assert np.array_equal(np.unique(ids.classes()[1:]), [1])
