"""Arguments of another kind are refused by name, whatever function they are given to."""

import json

import pytest
import torch
from torch import nn

import prunus
from prunus.errors import EditError
from prunus.surgery import Plan, bypass, linearize, skippable

MODEL = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3))
IMAGE = torch.randn(1, 3, 8, 8)
SGD = torch.optim.SGD(MODEL.parameters(), lr=0.1)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: prunus.expand(MODEL, 3), "expand: layers must be a string or a sequence, not 3"),
        (lambda: prunus.expand(MODEL, [3]), "expand: layers must be a string or a sequence, not list"),
        (lambda: prunus.expand(MODEL, keep_function="no"), "expand: keep_function must be True or False, not 'no'"),
        (lambda: prunus.expand(MODEL, seed="a"), "expand: seed must be a whole number, not 'a'"),
        (lambda: prunus.expand(MODEL, kind=None), "expand: kind must be a string, not None"),
        (lambda: prunus.decompose(MODEL, rank=1, nonlinear=1), "decompose: nonlinear must be True or False, not 1"),
        (lambda: prunus.factorize(MODEL, rank=1, layers=MODEL), "factorize: layers must be .* not Sequential"),
        (lambda: prunus.contract(3), "contract: model must be a torch.nn.Module, not 3"),
        (lambda: linearize("x"), "linearize: model must be a torch.nn.Module, not 'x'"),
        (lambda: bypass(None, IMAGE), "bypass: model must be a torch.nn.Module, not None"),
        (lambda: bypass(MODEL, "x"), "bypass: inputs must be a tensor or a tuple, not 'x'"),
        (lambda: skippable(MODEL, 1), "skippable: inputs must be a tensor or a tuple, not 1"),
        (lambda: prunus.fuse(MODEL, None), "fuse: inputs must be a tensor or a tuple, not None"),
        (lambda: prunus.carry_(Plan(), None, MODEL, MODEL), "carry_: optimizer must be a torch.optim.Optimizer, not N"),
        (lambda: prunus.carry_("x", SGD, MODEL, MODEL), "carry_: plan must be a Plan, not 'x'"),
        (lambda: prunus.load(".", MODEL), "load: build must be a function, not Sequential"),
        (lambda: prunus.load(3, nn.Module), "load: folder must be a string or a path, not 3"),
        (lambda: Plan.from_json(None), "a plan is JSON, and this is not"),
        (
            lambda: Plan.from_json('{"format": 1, "edits": ' + "[" * 100_000 + "]" * 100_000 + "}"),
            "a plan is JSON, and",
        ),
    ],
)
def test_what_is_of_another_kind_is_refused(call, said):
    with pytest.raises(EditError, match=said):
        call()


def test_all_that_is_of_its_kind_goes_through():
    assert len(prunus.expand(MODEL, layers=("0",), rate=2)) == 1
    assert prunus.bypass(MODEL, [IMAGE]) == Plan()
    assert prunus.fuse(MODEL, IMAGE, {}) == Plan()
    assert json.loads(prunus.expand(MODEL, ["0"], 1.5).to_json())["edits"][0]["edit"] == "Expand"


def test_a_wrong_number_of_arguments_is_pythons_own_error():
    with pytest.raises(TypeError, match=r"expand\(\) .*model"):
        prunus.expand()
    assert "globs over dotted paths" in str(prunus.expand.__doc__)
