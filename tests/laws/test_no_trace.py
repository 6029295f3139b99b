"""What is the user's stays as it was: no call leaves a trace in a network, its attributes, its modes or its example."""

import random

import nets
import numpy
import pytest
import torch
from torch import nn

import prunus

CALLS = {
    "trace": prunus.trace,
    "check_removal": prunus.check_removal,
    "fuse": prunus.fuse,
    "bypass": prunus.bypass,
    "apply": lambda model, inputs: prunus.apply(prunus.Plan(), model),
}


def attributes(model: nn.Module) -> list[str]:
    """Return what every module keeps, containers of hooks included; tensors are told by their identity."""

    def told(value):
        if isinstance(value, torch.Tensor | nn.Module):
            return f"{type(value).__name__} {id(value)}"
        if isinstance(value, dict):
            return {str(key): told(item) for key, item in value.items()}
        return [told(item) for item in value] if isinstance(value, list | tuple) else repr(value)

    return [str(told(vars(module))) for module in model.modules()]


def generators():
    return torch.get_rng_state().tolist(), random.getstate(), numpy.random.get_state()[1].tolist()


@pytest.mark.parametrize("name", nets.CASES)
@pytest.mark.parametrize("ran", [False, True], ids=["fresh", "ran"])
def test_a_call_leaves_no_trace(name, ran):
    case = nets.CASES[name]
    model, inputs = case.model(), case.inputs()
    twin, copies = case.model(), case.inputs()
    if ran:
        model(*inputs), twin(*copies)
    for call in CALLS.values():
        before = nets.state(model), attributes(model), generators()
        call(model, inputs)
        nets.assert_same_state(before[0], nets.state(model))
        assert (attributes(model), generators()) == before[1:]
        assert all(torch.equal(one, other) for one, other in zip(inputs, copies, strict=True))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first = nets.outputs(model(*inputs))
        torch.manual_seed(0)
        second = nets.outputs(twin(*copies))
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
