"""The ground floor's laws: kinds, ties, paths, memory formats and copies with other modules in place."""

import copy
import functools
import threading

import pytest
import torch
from torch import nn

import prunus
from prunus.errors import EditError
from prunus.modules.copying import copied, replace_, replaced
from prunus.modules.hooks import is_hooked
from prunus.modules.kinds import BatchNorm, LinearLayer, is_plain, kind_of, members
from prunus.modules.paths import module_at, paths_of
from prunus.modules.tensors import channels_last, memory_format_of, named_tensors, parameter_like, set_tensor_
from prunus.modules.ties import canonical_paths, further_paths, tied_with


class Tied(nn.Module):
    """Two layers with one weight, one layer under two names and in a list that torch does not know."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.second.weight = self.first.weight
        self.third = nn.Conv2d(3, 3, 1)
        self.again, self.kept = self.third, [self.third]

    def forward(self, x):
        return self.kept[0](self.again(self.third(self.second(self.first(x)))))


def test_ties_are_told_by_the_first_path():
    model = Tied()
    assert further_paths(model) == {
        "second.weight": "first.weight", "again.weight": "third.weight", "again.bias": "third.bias",
    }  # fmt: skip
    assert set(canonical_paths(model).values()) == named_tensors(model).keys()
    assert named_tensors(model, every_path=True).keys() == canonical_paths(model).keys()
    assert tied_with(model, model.second) == "first" and tied_with(model, model.third) is None
    assert paths_of(model, model.third) == ["third", "again"]


def test_a_module_is_replaced_wherever_the_network_refers_to_it():
    model, images = Tied(), torch.randn(1, 3, 5, 5)
    new = nn.Conv2d(3, 3, 1)
    small = replaced(model, {"third": new})
    assert small.third is small.again is small.kept[0] is new
    assert model.third is model.again is model.kept[0] and model.third is not new
    assert small.first.weight is small.second.weight is not model.first.weight
    expected = new(new(new(model.second(model.first(images)))))
    assert torch.equal(small(images), expected)
    own = copy.deepcopy(model)
    replace_(own, "again", new)
    assert own.third is own.again is new


def test_hooks_and_public_attributes_go_to_what_takes_a_layers_place():
    model, calls = Tied(), []
    model.third.register_forward_hook(lambda *_: calls.append("third"))
    model.third.role = "mixing"
    small = replaced(model, {"third": nn.Linear(3, 3), "first": nn.Identity()})
    assert is_hooked(small.third) and small.third.role == "mixing" and small.third.kernel_size == (1, 1)
    assert small.third.in_features == 3 and not is_hooked(small.first) and not hasattr(small.first, "kernel_size")


@pytest.mark.parametrize("kind", members(LinearLayer))
def test_kinds_are_called_as_torch_calls_them(kind):
    layer = kind(2, 2, *[1] * (kind is not nn.Linear))
    assert kind_of(layer) == kind.__name__ and is_plain(layer, LinearLayer) and not is_plain(layer, BatchNorm)

    class Own(kind):
        def forward(self, x):
            return 2 * super().forward(x)

    class Renamed(kind):
        pass

    own, renamed = Own(2, 2, *[1] * (kind is not nn.Linear)), Renamed(2, 2, *[1] * (kind is not nn.Linear))
    assert kind_of(own) == kind.__name__ and not is_plain(own, LinearLayer) and is_plain(renamed, LinearLayer)
    assert kind_of(nn.ReLU()) is None and not is_plain(nn.ReLU(), LinearLayer)
    assert not is_plain(nn.utils.parametrizations.weight_norm(layer), LinearLayer)


@pytest.mark.parametrize("shape", [(4,), (4, 3), (4, 3, 2, 2), (4, 3, 1, 1), (4, 3, 2, 2, 2)])
def test_a_memory_format_is_told_and_made(shape):
    tensor = torch.randn(shape)
    assert memory_format_of(tensor) is torch.contiguous_format
    last = channels_last(tensor)
    assert torch.equal(last, tensor)
    expected = {(4, 3, 2, 2): torch.channels_last, (4, 3, 2, 2, 2): torch.channels_last_3d}
    assert memory_format_of(last) is expected.get(shape, torch.contiguous_format)


def test_a_parameter_is_made_like_another():
    old = nn.Parameter(torch.ones(3), requires_grad=False)
    old.marks = ["no decay"]
    new = parameter_like(torch.zeros(2), old)
    assert not new.requires_grad and new.marks == ["no decay"] and new.marks is not old.marks
    model = Tied()
    set_tensor_(model, "third.weight", nn.Parameter(torch.zeros(3, 3, 1, 1)))
    assert not model.again.weight.any()


def test_a_path_that_is_none_names_near_ones():
    with pytest.raises(EditError, match="secnd: Tied has no such module; similar: second"):
        module_at(Tied(), "secnd")
    assert module_at(Tied(), "").__class__ is Tied


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda model: setattr(model.second, "lock", threading.Lock()), "second.lock: Tied cannot be copied.*_thread"),
        (lambda model: nn.utils.weight_norm(model.third), "third.weight: Tied cannot be copied.*remove_weight_norm"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_what_cannot_be_copied_is_refused(spoil, said):
    model = Tied()
    spoil(model)
    model(torch.randn(1, 3, 5, 5))
    for change in (copied, functools.partial(replaced, new={"first": nn.Identity()})):
        with pytest.raises(EditError, match=said):
            change(model)


class Keeps(nn.Module):
    """Features of the last run in a list, a buffer made of a parameter, a hook of its own and two of others."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3)
        self.anchors = nn.Embedding(4, 4)
        self.register_buffer("priors", self.anchors.weight * 2)
        self.features, self.count = [], 0
        self.first.register_forward_hook(self.counted)
        self.first.register_forward_hook(functools.partial(Keeps.counted, self))

    def counted(self, *arguments):
        self.count += 1

    def forward(self, x):
        self.features = [{"first": self.first(x).relu()}]
        return self.second(self.features[0]["first"]) + self.priors.mean()


class Collector:
    """What somebody else hangs on a layer."""

    def __init__(self):
        self.shapes = []

    def __call__(self, module, arguments, output):
        self.shapes.append(tuple(output.shape))

    def also(self, module, arguments):
        self.shapes.append("before")


def trained(model, images):
    model(images).sum().backward()
    return model


IMAGES = torch.randn(2, 3, 9, 9, generator=torch.Generator().manual_seed(0))


def half(model):
    """The plan that removes half of the first layer's channels."""
    with torch.no_grad():
        for tensor in (model.first.weight, model.first.bias):
            tensor[::2] = 0
    return prunus.select(model, prunus.trace(copied(model), IMAGES))


@pytest.mark.parametrize("plan", [lambda model: prunus.Plan(), half], ids=["a copy", "a cut"])
def test_what_a_network_keeps_of_a_run_is_copied_without_its_graph(plan):
    model = trained(Keeps(), IMAGES)
    edits = plan(model)
    wide = model(IMAGES)
    small = prunus.apply(edits, model)
    assert torch.equal(small.features[0]["first"], model.features[0]["first"])
    assert not small.features[0]["first"].requires_grad and model.features[0]["first"].grad_fn is not None
    assert torch.equal(small.priors, model.priors) and model.priors.grad_fn is not None
    assert torch.allclose(small(IMAGES), wide, atol=1e-5)


def test_a_hook_of_the_network_goes_with_the_copy_and_one_of_others_stays_theirs():
    model, collector = Keeps(), Collector()
    model.second.register_forward_hook(collector)
    model.second.register_forward_pre_hook(functools.partial(Collector.also, collector))
    plan = half(model)
    count = model.count
    collector.shapes.clear()
    small = prunus.apply(plan, model)
    small(IMAGES)
    assert collector.shapes == ["before", (2, 4, 5, 5)]
    copied(model, isolated=True)(IMAGES)
    assert len(collector.shapes) == 2
    assert (model.count, small.count) == (count, count + 2)


@pytest.mark.parametrize("frozen", [False, True])
def test_hooks_on_parameters_are_carried_or_refused(frozen):
    model, calls = Keeps(), []
    for name, parameter in model.named_parameters():
        parameter.register_hook(lambda gradient, name=name: calls.append(name))
        parameter.register_post_accumulate_grad_hook(lambda each, name=name: calls.append(f"{name} accumulated"))
        parameter.requires_grad_(not frozen)
    plan = half(model)
    small = prunus.apply(plan, model).requires_grad_(True)
    assert small.first.weight.shape[0] == 4
    calls.clear()
    trained(small, IMAGES)
    layers = [f"{layer}.{name}" for layer in ("first", "second") for name in ("weight", "bias")]
    assert set(calls) == {*layers, *(f"{name} accumulated" for name in layers)}
    with pytest.raises(EditError, match=r"first.weight has hooks .*remove them"):
        prunus.apply(prunus.expand(model, "first", 2), model)


def test_a_copy_that_prunus_runs_shares_what_cannot_be_copied_and_nothing_else():
    model = Tied()
    model.third.lock = threading.Lock()
    own = copied(model, isolated=True)
    assert own.third.lock is model.third.lock
    assert own.kept[0] is own.third is not model.third


def test_python_modules_that_a_network_keeps_are_shared():
    model = nn.Sequential(nn.Linear(3, 2))
    model.library = torch
    assert copied(model).library is torch


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: torch.jit.script(nn.Sequential(nn.Linear(3, 2))), "is TorchScript"),
        (lambda: nn.Sequential(nn.LazyLinear(2)), "0.weight is lazy"),
        (lambda: nn.functional.relu, "takes a torch.nn.Module"),
    ],
)
def test_what_has_no_code_or_no_shape_is_refused_by_all_that_read(model, message):
    calls = (prunus.trace, prunus.check_removal, prunus.fuse, prunus.bypass)
    for call in calls:
        with pytest.raises(prunus.PrunusError, match=f"{message}|must be a torch.nn.Module"):
            call(model(), torch.rand(2, 3))
