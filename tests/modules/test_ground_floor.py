"""The ground floor's laws: kinds, ties, paths, memory formats and copies with other modules in place."""

import copy
import functools
from pathlib import Path

import pytest
import torch
from torch import nn

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
    with pytest.raises(EditError, match="secnd: Tied has no such module; near ones are second"):
        module_at(Tied(), "secnd")
    assert module_at(Tied(), "").__class__ is Tied


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda model: setattr(model, "file", Path(__file__).open()), "Tied cannot be copied"),  # noqa: SIM115
        (lambda model: nn.utils.weight_norm(model.third), "cannot be copied.*remove_weight_norm"),
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
