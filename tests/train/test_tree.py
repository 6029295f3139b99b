import json
import random

import numpy as np
import pytest
import torch
from torch import nn

from prunus.errors import CheckpointError
from prunus.train import checkpoint
from prunus.train.tree import flatten, random_state, set_random_state, unflatten

OPTIMIZERS = {
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, lr=1e-3, betas=(0.8, 0.95), amsgrad=True),
    "adamw": lambda p: torch.optim.AdamW([{"params": list(p), "weight_decay": 0.3}], lr=torch.tensor(1e-2)),
}


def through_disk(folder, tree):
    tensors, structure = flatten(tree)
    path = checkpoint.write(folder, step=1, tensors=tensors, state={"tree": structure})
    found = checkpoint.read(path)
    return unflatten(found.tensors, found.state["tree"])


def assert_same(first, second):
    assert type(first) is type(second)
    if isinstance(first, torch.Tensor):
        assert first.dtype == second.dtype
        assert torch.equal(first, second)
    elif isinstance(first, np.ndarray):
        assert first.dtype == second.dtype
        assert np.array_equal(first, second)
    elif isinstance(first, dict):
        assert list(first) == list(second)
        for key in first:
            assert_same(first[key], second[key])
    elif isinstance(first, list | tuple):
        assert len(first) == len(second)
        for left, right in zip(first, second, strict=True):
            assert_same(left, right)
    else:
        assert first == second


def steps(network, optimizer, count):
    for _ in range(count):
        optimizer.zero_grad()
        network(torch.randn(4, 3)).square().mean().backward()
        optimizer.step()


def new(make):
    network = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, 2))
    return network, make(network.parameters())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizers_state_is_the_same_to_the_last_bit(tmp_path, name):
    network, optimizer = new(OPTIMIZERS[name])
    steps(network, optimizer, 3)
    state = optimizer.state_dict()
    assert state["state"]
    assert_same(through_disk(tmp_path, state), state)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_resumed_run_takes_the_same_steps(tmp_path, name):
    network, optimizer = new(OPTIMIZERS[name])
    steps(network, optimizer, 3)
    state = {
        "model": dict(network.state_dict()),
        "optimizer": optimizer.state_dict(),
        "random": random_state(),
    }
    read = through_disk(tmp_path, state)
    steps(network, optimizer, 3)
    again, resumed = new(OPTIMIZERS[name])
    again.load_state_dict(read["model"])
    resumed.load_state_dict(read["optimizer"])
    set_random_state(read["random"])
    steps(again, resumed, 3)
    assert_same(dict(again.state_dict()), dict(network.state_dict()))


def test_random_generators_go_on_where_they_were(tmp_path):
    np.random.standard_normal()  # leaves half of a pair of Gaussians behind
    read = through_disk(tmp_path, random_state())
    expected = (torch.rand(5), [random.random() for _ in range(5)], np.random.standard_normal(5))
    set_random_state(read)
    assert_same((torch.rand(5), [random.random() for _ in range(5)], np.random.standard_normal(5)), expected)


def test_every_type_survives(tmp_path):
    tree = {
        "a": [1, 2.5, None, True, "x", float("inf"), 2**70, 5e-324],
        3: (np.arange(4, dtype=np.uint32), np.float64(0.1).item(), np.zeros((0, 2))),
        "empty": {"dict": {}, "list": [], "tuple": ()},
        "looks like a tag": {"tensor": "state.a"},
        "dotted.key": {"b": torch.zeros(1)},
        "dotted": {"key.c": torch.ones(1)},
    }
    assert_same(through_disk(tmp_path, tree), tree)


def test_two_paths_that_read_alike_are_two_tensors():
    tree = {"a.b": torch.zeros(1), "a": {"b": torch.ones(1)}}
    assert_same(unflatten(*flatten(tree)), tree)
    tree = {1: torch.zeros(1), "1": torch.ones(1)}
    assert_same(unflatten(*flatten(tree)), tree)


def test_the_structure_is_json():
    _, structure = flatten({"a": (1, {2: torch.zeros(1)})})
    assert json.loads(json.dumps(structure)) == structure


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"groups": [{"hook": print}]}, r"state\.groups\.0\.hook is a builtin_function_or_method"),
        ({"a": {1, 2}}, r"state\.a is a set"),
        ({"a": np.array(["x"])}, r"state\.a is a ndarray"),
        ({("a", 1): 2}, r"key \('a', 1\)"),
        ({True: 2}, "key True"),
    ],
)
def test_what_cannot_be_stored_is_named_by_its_path(tree, message):
    with pytest.raises(CheckpointError, match=message):
        flatten(tree)


@pytest.mark.parametrize(
    "structure",
    [{"tensor": "absent"}, {"set": [1]}, {"list": 3}, {}, {"dict": [[1]]}, {"tuple": [], "list": []}],
)
def test_a_structure_that_does_not_fit_is_refused(structure):
    with pytest.raises(CheckpointError, match="does not fit"):
        unflatten({}, structure)
