"""What is the user's stays as it was: no call leaves a trace in a network, its attributes, its modes or its example."""

import random

import nets
import numpy
import pytest
import torch
from torch import nn

import prunus
from prunus.compat import torchvision

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


def require_no_trace(build, *, ran):
    """Call all of Prunus on a network, and compare it with a twin on which nothing was called."""
    (model, inputs), (twin, copies) = build(), build()
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


@pytest.mark.parametrize("name", nets.CASES)
@pytest.mark.parametrize("ran", [False, True], ids=["fresh", "ran"])
def test_a_call_leaves_no_trace(name, ran):
    case = nets.CASES[name]
    require_no_trace(lambda: (case.model(), case.inputs()), ran=ran)


TORCHVISION = ["resnet18", "shufflenet_v2_x0_5", "mobilenet_v3_small", "squeezenet1_1", "swin_v2_t", "vit_b_32"]
TIMM = [
    "levit_128s",
    "efficientformerv2_s0",
    "tiny_vit_5m_224",
    "test_vit",
    "test_convnext",
    "mobilevit_xxs",
    "xcit_nano_12_p8_224",
]


def of_the_zoo(name):
    torch.manual_seed(0)
    make = torchvision.models.get_model if name in TORCHVISION else pytest.importorskip("timm").create_model
    return make(name), (torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0)),)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.filterwarnings("ignore")  # their own
@pytest.mark.parametrize("name", [*TORCHVISION, *TIMM])
@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
def test_a_call_leaves_no_trace_in_a_network_of_the_zoo(name, training):
    def build():
        model, inputs = of_the_zoo(name)
        return model.train(training), inputs

    require_no_trace(build, ran=training)
