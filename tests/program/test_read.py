"""A network is read by running its code once, on a copy: what it does is recorded whole, and nothing of it stays."""

import collections
import functools
import random

import numpy
import pytest
import torch
from torch import nn

import prunus
from prunus.program import Origin, ReadError, read

SEEN: list[torch.Tensor] = []  # what a hook of a notebook collects in a global variable
TABLES: dict[int, torch.Tensor] = {}
COUNTER = torch.zeros(1)


def images():
    return torch.randn(2, 3, 8, 8)


def names(program):
    return [operation.name.removeprefix("aten::") for operation in program.operations]


class Composite(nn.Module):
    """Operators that torch takes apart when it runs them."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = nn.Conv2d(3, 8, 3, padding="same"), nn.BatchNorm2d(8), nn.LSTM(64, 4)

    def forward(self, x):
        y = self.norm(self.first(x)).flatten(2)
        y = torch.matmul(y.transpose(1, 2), y)
        return self.last(y.reshape(2, 64, -1))[0]


def test_operators_are_recorded_whole_by_name_with_their_module_and_line():
    program = read(Composite(), (images(),))
    whole = ["conv2d", "batch_norm", "flatten", "transpose", "matmul", "reshape"]
    assert [name for name in names(program) if name != "zeros"] == [*whole, "lstm"]
    conv = program.operations[0]
    assert conv.arguments["padding"] == "same" and conv.arguments["groups"] == 1
    assert conv.arguments["weight"].path == "first.weight" and conv.arguments["weight"].origin is Origin.PARAMETER
    assert conv.module == "first" and "test_read.py:" in conv.line
    assert program.outputs[0].shape == (2, 64, 4)


def test_at_another_width_it_is_what_a_narrower_network_does():
    model, six = Composite(), torch.arange(6)
    keep = {f"first.{name}": {0: six} for name in ("weight", "bias")}
    keep |= {f"norm.{name}": {0: six} for name in ("weight", "bias", "running_mean", "running_var")}
    shapes = [
        value.shape for operation in read(model, (images(),), keep=keep).operations for value in operation.results
    ]
    assert shapes[:3] == [(2, 6, 8, 8), (2, 6, 8, 8), (2, 6, 64)]


class Cached(nn.Module):
    """It keeps what it computes wherever code keeps such things."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1)
        self.nested, self.ordered = {"inner": {}}, collections.OrderedDict()
        self.default, self.features = collections.defaultdict(list), []
        self.calls = 0
        self.first.register_forward_hook(lambda module, args, output: self.features.append(output))
        self.last.register_forward_hook(lambda module, args, output: SEEN.append(output))

    def grid(self, size):
        if size not in TABLES:
            TABLES[size] = torch.linspace(0, 1, size)
        return TABLES[size]

    def forward(self, x):
        x -= x.mean()  # the example itself
        COUNTER.add_(1)
        self.calls += 1
        grid = self.grid(x.shape[-1]) + table(x.shape[-1])
        self.nested["inner"][x.shape] = self.ordered[x.shape] = grid
        self.default["all"].append(grid)
        return self.last(self.first(x) * grid) + 0 * self.features[-1].sum()


@functools.lru_cache
def table(size):
    return torch.arange(size)


def everything(model):
    kept = model.nested, model.ordered, model.default, model.features, model.calls, SEEN, COUNTER.item()
    hooks = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()]
    generators = torch.get_rng_state().tolist(), random.getstate(), numpy.random.get_state()[1].tolist()
    return str(kept), hooks, generators, [module.training for module in model.modules()]


@pytest.mark.parametrize("ran", [False, True])
def test_it_leaves_no_trace(ran):
    SEEN.clear()
    TABLES.clear()
    model, example = Cached(), images()
    if ran:
        model(example.clone())
    before, copy, tables = everything(model), example.clone(), dict(TABLES)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    groups = prunus.trace(model, example)
    assert int(groups.exact.sum()) == 8
    assert everything(model) == before and torch.equal(example, copy)
    assert set(TABLES) == set(tables)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert model(example).requires_grad  # what is cached can be trained with
    model(example).sum().backward()


class Modes(nn.Module):
    """A `train` of its own that returns nothing, and drops what evaluation caches."""

    def __init__(self):
        super().__init__()
        self.first, self.last, self.bias = nn.Linear(3, 8), nn.Linear(8, 2), nn.Parameter(torch.randn(8))
        self.cache = None

    def train(self, mode=True):
        super().train(mode)
        self.cache = None if mode else self.bias * 2

    def forward(self, x):
        return self.last(self.first(x) * (self.bias * 2 if self.training else self.cache))


def test_a_network_with_a_train_of_its_own_is_read_in_both_modes():
    model = Modes()
    model.eval()
    kept = model.cache
    assert int(prunus.trace(model, torch.randn(2, 3)).exact.sum()) == 8
    assert model.cache is kept and not model.training


class ByDevice(nn.Module):
    """Autocast by the device of the input: it does not run on the meta device."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(3, 8), nn.Linear(8, 2)

    def forward(self, x):
        with torch.autocast(device_type=x.device.type, enabled=False):
            return self.last(self.first(x).relu())


def test_what_does_not_run_on_the_meta_device_is_read_on_its_numbers():
    program = read(ByDevice(), (example := torch.randn(2, 3),))
    assert program.mode.with_values and names(program) == ["linear", "relu", "linear"]
    assert program.given[-1].tensor is not example and torch.equal(program.given[-1].tensor, example)
    assert int(prunus.trace(ByDevice(), example).exact.sum()) == 8


@pytest.mark.parametrize("with_values", [False, True])
@pytest.mark.parametrize(
    "function",
    [
        lambda x: x * x.sum().item(),
        lambda x: x * x.mean((0, 1)).tolist(),
        lambda x: x * float(x.detach().numpy().mean()),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: x if torch.equal(x, x) else -x,
        lambda x: x if x.isnan().any() else -x,
        lambda x: torch.tensor([1.0, 2.0])[x.argmax()].item() * x,
    ],
    ids=["item", "tolist", "numpy", "mask", "nonzero", "equal", "any", "looked_up"],
)
def test_code_that_asks_for_values_of_data_is_refused_with_its_line(function, with_values):
    with pytest.raises(ReadError, match=r"has control flow that depends on a tensor's values at .*test_read.py:\d+"):
        read(Function(function), (torch.randn(2, 3),), with_values=with_values)


class Function(nn.Module):
    """A function."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def constants(x):
    size = torch.tensor(x.shape)[-1].item()
    mask = torch.zeros(size)
    first = x * mask  # zeros: what is written later is another value
    mask[: int(torch.arange(size).sum()) // 2] = 1
    return first + x * mask[torch.tensor([False, True, True])].sum() + len(mask.tolist())


def test_constants_have_values_and_keep_those_that_were_read():
    program = read(Function(constants), (torch.randn(2, 3),))
    met = [value.constant for value in program.given if value.origin is Origin.CONSTANT]
    assert [constant.tolist() for constant in met] == [[0, 0, 0], 0]  # the mask as it was, and the sum of two zeros


class Hidden:
    """An object that says nothing of the tensors in it."""

    def __init__(self, x):
        self.x = x


def test_outputs_that_may_hide_tensors_are_refused():
    with pytest.raises(ReadError, match="returns a Hidden, whose tensors cannot be found"):
        read(Function(Hidden), (torch.randn(2, 3),))
