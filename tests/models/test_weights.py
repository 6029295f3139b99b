"""Weights that a network begins with: what is recognised, what is listed, what is refused."""

import collections
import os
import zipfile

import pytest
import safetensors.torch
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from prunus.errors import DataError, PrunusError, RecipeError
from prunus.models.weights import Weights, load_


class Net(nn.Module):
    def __init__(self, classes=3):
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.head = nn.Linear(4, classes)


def trained(classes=3):
    torch.manual_seed(1)
    net = Net(classes)
    net.encoder[1].running_mean.normal_()
    return net


def assert_same(net, like, names=None):
    found, expected = net.state_dict(), like.state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in names or expected)


def prefixed(prefix, state):
    return {prefix + name: each for name, each in state.items()}


WRAPPED = {
    "plain": lambda net: net.state_dict(),
    "model": lambda net: {"model": net.state_dict(), "epoch": 3, "optimizer": {"state": {0: {"step": 1}}}},
    "state_dict": lambda net: {"state_dict": net.state_dict(), "best": 0.5},
    "model_state_dict": lambda net: {"model_state_dict": net.state_dict()},
    "both": lambda net: {"model": {"state_dict": net.state_dict()}},
    "module.": lambda net: prefixed("module.", net.state_dict()),
    "_orig_mod.": lambda net: prefixed("_orig_mod.", net.state_dict()),
    "module._orig_mod.": lambda net: {"model": prefixed("module._orig_mod.", net.state_dict())},
    "_orig_mod.module.": lambda net: prefixed("_orig_mod.module.", net.state_dict()),
    "average": lambda net: AveragedModel(net).state_dict(),
}


@pytest.mark.parametrize("form", WRAPPED)
@pytest.mark.parametrize("legacy", [False, True])
def test_a_file_of_torch_save_is_recognised_however_it_is_wrapped(tmp_path, form, legacy):
    net = trained()
    torch.save(WRAPPED[form](net), tmp_path / "w.pt", _use_new_zipfile_serialization=not legacy)
    other = Net()
    found = load_(other, Weights(path=str(tmp_path / "w.pt")))
    assert_same(other, net)
    assert set(found.loaded) == set(net.state_dict()) and not found.fresh and not found.unused


def test_a_network_that_has_a_module_of_that_name_keeps_its_prefix(tmp_path):
    net = nn.ModuleDict({"module": trained()})
    safetensors.torch.save_file(net.state_dict(), tmp_path / "w.safetensors")
    other = nn.ModuleDict({"module": Net()})
    load_(other, Weights(path=str(tmp_path / "w.safetensors")))
    assert_same(other, net)


def test_an_encoder_gets_its_own_from_a_file_of_something_larger(tmp_path):
    net, other = trained(), Net()
    head = other.head.weight.clone()
    torch.save(prefixed("backbone.", net.encoder.state_dict()) | {"fc.weight": torch.ones(2)}, tmp_path / "w.pt")
    load_(other, Weights(path=str(tmp_path / "w.pt"), into="encoder", part="backbone"))
    assert_same(other.encoder, net.encoder)
    assert torch.equal(other.head.weight, head)
    torch.save({"ema": {"state_dict": net.state_dict()}, "model": Net().state_dict()}, tmp_path / "w.pt")
    load_(other, Weights(path=str(tmp_path / "w.pt"), part="ema"))
    assert_same(other, net)


@pytest.mark.parametrize("pattern", ["head", "head.*", "h*"])
def test_a_head_of_other_classes_is_left_out_by_pattern(tmp_path, pattern):
    path = tmp_path / "w.safetensors"
    safetensors.torch.save_file(trained(5).state_dict(), path)
    other = Net(3)
    head = other.head.weight.clone()
    with pytest.raises(RecipeError, match=r"head\.weight \[5, 4\] for \[3, 4\].*leave_out"):
        load_(other, Weights(path=str(path)))
    with pytest.raises(RecipeError, match=r"head\.weight \[5, 4\] for \[3, 4\]"):
        load_(other, Weights(path=str(path), strict=False))
    found = load_(other, Weights(path=str(path), leave_out=(pattern,)))
    assert_same(other.encoder, trained(5).encoder)
    assert torch.equal(other.head.weight, head)
    assert found.fresh == ("head.weight", "head.bias")


def test_names_that_do_not_fit_are_listed_and_refused_unless_not_strict(tmp_path):
    state = trained().state_dict()
    state["tail.weight"] = state.pop("head.weight")
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(RecipeError, match=r"the file lacks head\.weight; the network has no tail\.weight"):
        load_(Net(), Weights(path=str(tmp_path / "w.pt")))
    found = load_(Net(), Weights(path=str(tmp_path / "w.pt"), strict=False))
    assert found.fresh == ("head.weight",) and found.unused == ("tail.weight",)
    assert "head.weight" in found.summary() and "tail.weight" in found.summary()


def test_tied_tensors_may_stand_in_the_file_once(tmp_path):
    def tied():
        net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
        net[1].weight = net[0].weight
        return net

    net, other = tied(), tied()
    safetensors.torch.save_model(net, tmp_path / "w.safetensors")
    load_(other, Weights(path=str(tmp_path / "w.safetensors")))
    assert_same(other, net)


def test_a_file_from_before_batch_norms_counted_fits(tmp_path):
    state = {name: each for name, each in trained().state_dict().items() if "num_batches" not in name}
    safetensors.torch.save_file(state, tmp_path / "w.safetensors")
    other = Net()
    load_(other, Weights(path=str(tmp_path / "w.safetensors")))
    assert_same(other, trained(), state)


@pytest.mark.parametrize("kind", [torch.int8, torch.uint8, torch.bool, torch.complex64])
def test_weights_that_are_no_floats_are_not_cast(tmp_path, kind):
    state = trained().state_dict()
    torch.save(state | {"head.bias": state["head.bias"].to(kind)}, tmp_path / "w.pt")
    net = Net()
    before = net.head.bias.clone()
    with pytest.raises(RecipeError, match=rf"not in floating point \(quantised\?\): head\.bias {str(kind)[6:]}"):
        load_(net, Weights(path=str(tmp_path / "w.pt")))
    assert torch.equal(net.head.bias, before)


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


def compressed(path):
    torch.save(trained().state_dict(), path)
    with zipfile.ZipFile(path) as old:
        entries = {entry.filename: old.read(entry) for entry in old.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name, content in entries.items():
            new.writestr(name, content)


def cut_short(path):
    torch.save(trained().state_dict(), path)
    path.write_bytes(path.read_bytes()[:700])


def saved(content):
    return lambda path: torch.save(content(), path)


REFUSED = {
    "code": (saved(lambda: {"weight": Bomb()}), "runs code when it is read .*save_file"),
    "a whole network": (saved(trained), "runs code when it is read"),
    "code, old format": (
        lambda path: torch.save(Bomb(), path, _use_new_zipfile_serialization=False),
        "runs code when it is read",
    ),
    "compressed": (compressed, "compressed"),
    "cut short": (cut_short, "cannot be read"),
    "empty": (lambda path: path.write_bytes(b""), "neither a safetensors file nor"),
    "text": (lambda path: path.write_text("weights, honestly"), "neither a safetensors file nor"),
    "a safetensors file cut short": (lambda path: path.write_bytes(b"\x40" + b"\x00" * 7), "neither a safetensors"),
    "a header of nothing": (lambda path: path.write_bytes(b"\xff" * 7 + b"\x00{" + b"x" * 99), "damaged safetensors"),
    "a list": (saved(lambda: [torch.ones(2)]), "holds a list"),
    "no tensors": (saved(lambda: {"epoch": 3, "lr": 0.1}), "no tensors.*'epoch', 'lr'"),
    "itself": (saved(lambda: (loop := {"epoch": 1}, loop.update(model=loop))[0]), "no tensors"),
    "two": (saved(lambda: {"model": {"a": torch.ones(1)}, "state_dict": {"a": torch.ones(1)}}), "part: model"),
    "no numbers": (saved(lambda: trained().state_dict() | {"head.bias": torch.full((3,), torch.nan)}), "head.bias"),
    "sparse": (saved(lambda: {"head.bias": torch.ones(3).to_sparse()}), "head.bias is not a plain tensor"),
    "meta": (saved(lambda: {"head.bias": torch.ones(3, device="meta")}), "head.bias is not a plain tensor"),
    "expanded": (saved(lambda: {"head.bias": torch.ones(1).expand(10**6, 10**6)}), "head.bias is not a plain tensor"),
    "8-bit floats": (
        saved(lambda: {"head.bias": torch.ones(3).to(torch.float8_e4m3fn)}),
        "head.bias is not a plain tensor",
    ),
    "a pipe": (os.mkfifo, "not a regular file"),
    "a folder": (os.mkdir, "cannot be read"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_file_of_weights_is_refused_and_nothing_in_it_runs(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    make, told = REFUSED[kind]
    make(tmp_path / "w.pt")
    net, before = Net(), collections.OrderedDict()
    before.update({name: each.clone() for name, each in net.state_dict().items()})
    with pytest.raises(DataError, match=f"(?s)w.pt.*{told}"):
        load_(net, Weights(path=str(tmp_path / "w.pt")))
    assert not (tmp_path / "exploded").exists()
    assert all(torch.equal(each, before[name]) for name, each in net.state_dict().items())


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"path": "absent.pt"}, "absent.pt cannot be read"),
        ({"into": "encodr"}, "similar: encoder"),
        ({"leave_out": ("heads.*",)}, "'heads.*' matches no tensor; similar: head"),
        ({"leave_out": ("*",)}, "everything is left out"),
        ({"part": "backbone"}, "no tensors under 'backbone'"),
    ],
)
def test_settings_that_fit_nothing_say_what_there_is(tmp_path, settings, told):
    torch.save(trained().state_dict(), tmp_path / "w.pt")
    with pytest.raises(PrunusError, match=told):
        load_(Net(), Weights(**{"path": str(tmp_path / "w.pt")} | settings))
