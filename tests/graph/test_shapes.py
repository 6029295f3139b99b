"""Operators on shapes alone are remembered, and what is remembered is what they give."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from prunus.graph.shapes import Shapes


def meta(*size, **settings):
    return torch.empty(*size, device="meta", **settings)


class Counted:
    """Counts how often a function runs."""

    def __init__(self, function):
        self.function, self.runs = function, 0

    def __call__(self, *args, **kwargs):
        self.runs += 1
        return self.function(*args, **kwargs)


@pytest.mark.parametrize(
    ("function", "args"),
    [
        (torch.add, (meta(2, 3), meta(3))),
        (F.conv2d, (meta(1, 3, 8, 8).to(memory_format=torch.channels_last), meta(4, 3, 3, 3))),
        (torch.split, (meta(6, 4), [2, 4])),
        (torch.Tensor.permute, (meta(2, 3, 4), 2, 0, 1)),
        (torch.Tensor.__getitem__, (meta(4, 5), (slice(None), slice(0, 2)))),
        (torch.ops.aten.native_layer_norm.default, (meta(2, 8), [8], None, None, 1e-5)),
        (torch.Tensor.to, (meta(3), torch.float64)),
        (torch.select, (meta(4, 3), 0, 2)),
    ],
    ids=["add", "conv", "split", "permute", "slice", "layer_norm", "to", "select"],
)
def test_the_second_time_it_does_not_run_and_gives_the_like(function, args):
    shapes, counted = Shapes(), Counted(function)
    first, second = shapes.of(counted, args, {}), shapes.of(counted, args, {})
    assert counted.runs == 1
    pairs = [(first, second)] if isinstance(first, torch.Tensor) else list(zip(first, second, strict=True))
    assert type(first) is type(second)
    for one, other in pairs:
        assert one is not other
        assert (one.shape, one.stride(), one.dtype, one.device) == (
            other.shape,
            other.stride(),
            other.dtype,
            other.device,
        )


@pytest.mark.parametrize(
    ("function", "args"),
    [
        (torch.Tensor.add_, (meta(2, 3), 1)),
        (torch.Tensor.contiguous, (meta(2, 3),)),
        (torch.repeat_interleave, (meta(2), torch.tensor([1, 2]))),
        (torch.Tensor.size, (meta(2, 3),)),
        (torch.zeros, (2, 3)),
        (torch.add, (torch.zeros(2), torch.ones(2))),
        (F.linear, (meta(2, 3), nn.Parameter(torch.zeros(4, 3)))),
    ],
    ids=["in_place", "itself", "values", "number", "nothing", "real", "parameter"],
)
def test_what_shapes_do_not_tell_runs_every_time(function, args):
    shapes, counted = Shapes(), Counted(function)
    try:
        results = [shapes.of(counted, args, {}) for _ in range(2)]
    except RuntimeError:  # torch itself does not mix values and shapes
        results = []
    assert counted.runs == max(len(results), 1)


def test_numbers_of_other_types_are_not_taken_for_each_other():
    shapes, counted = Shapes(), Counted(torch.mul)
    kinds = [shapes.of(counted, (meta(2, dtype=torch.int64), factor), {}).dtype for factor in (1, 1.0, True)]
    assert kinds == [torch.int64, torch.float32, torch.int64] and counted.runs == 3
    sizes = [shapes.of(Counted(torch.sum), (meta(2, 3), dim), {}).shape for dim in ((0,), [1], 0)]
    assert sizes == [(3,), (2,), (3,)]
