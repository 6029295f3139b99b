"""save and load: the same network back, whole or not at all, with errors that name the place."""

import json
import os

import nets
import pytest
import safetensors.torch
import torch
from torch import nn

import prunus
from prunus import storage
from prunus.errors import EditError
from prunus.penalties.zeros import zero_
from prunus.verify import difference

FILES = {"plan.json", "weights.safetensors", "manifest.json"}


def small_and_plan(name, dtype=torch.float64):
    case = nets.CASES[name]
    model, inputs = case.model(dtype), case.inputs(dtype)
    groups = prunus.trace(model, inputs)
    chosen = groups.exact.clone()
    chosen[groups.exact.nonzero().flatten()[::2]] = False
    zero_(model, groups, chosen)
    plan = prunus.select(model, groups)
    return prunus.apply(plan, model), plan, inputs


@pytest.mark.parametrize(
    "name", ["residual", "tied_layers", "transposed_grouped", "batch_norm_without_affine", "c2f", "shared"]
)
def test_what_was_saved_comes_back(name, tmp_path):
    small, plan, inputs = small_and_plan(name)
    parts = list(small.modules())
    for part in parts[1::2]:
        part.training = False
    list(small.parameters())[1].requires_grad_(False)
    prunus.save(tmp_path / "narrow", small, plan)
    assert {path.name for path in (tmp_path / "narrow").iterdir()} == FILES
    assert [path.name for path in tmp_path.iterdir()] == ["narrow"]
    loaded = prunus.load(tmp_path / "narrow", nets.CASES[name].build)
    assert type(loaded) is type(small)
    assert difference(small, loaded, inputs) == (0.0, 0.0)
    before, after = nets.state(small), nets.state(loaded)
    assert before["modes"] == after["modes"] and before["repr"] == after["repr"]
    for path, (_, tensor, grad) in before["values"].items():
        assert after["values"][path][2] == grad and torch.equal(tensor, after["values"][path][1])
    loaded.train()
    nets.outputs(loaded(*inputs))[0].sum().backward()


def test_ties_memory_format_and_buffers_that_are_not_persistent(tmp_path):
    def build():
        model = nets.CASES["tied_layers"].build()
        model.register_buffer("calibration", torch.zeros(3), persistent=False)
        model.kernel = nn.Conv2d(3, 4, 3)
        return model

    model = nets.randomised(build(), 0).to(memory_format=torch.channels_last)
    prunus.save(tmp_path / "narrow", model, prunus.Plan())
    loaded = prunus.load(str(tmp_path / "narrow"), build)
    assert loaded.first.weight is loaded.second.weight
    assert torch.equal(loaded.calibration, model.calibration)
    assert "calibration" not in loaded.state_dict()
    assert loaded.kernel.weight.stride() == model.kernel.weight.stride()


def test_parametrised_weights(tmp_path):
    def build():
        return nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)), nn.ReLU(), nn.Linear(3, 2))

    model = nets.randomised(build(), 0)
    prunus.save(tmp_path / "narrow", model, prunus.Plan())
    loaded = prunus.load(tmp_path / "narrow", build)
    assert difference(model, loaded, (torch.randn(2, 4),))[0] == 0


class Loose(nn.Module):
    """Keeps a tensor that is neither parameter nor buffer."""

    def __init__(self, seen):
        super().__init__()
        self.net = nn.Linear(2, 2)
        self.tables = {"first": [torch.arange(2.0)]}
        seen.append(self.tables["first"][0].device.type)

    def forward(self, x):
        return self.net(x) + self.tables["first"][0]


class Reads(nn.Module):
    """Reads a value while it is built, as many drop-path rates do."""

    def __init__(self, seen):
        super().__init__()
        self.rates = torch.linspace(0, 1, 3).tolist()
        self.net = nn.Linear(2, 2)
        seen.append(self.net.weight.device.type)

    def forward(self, x):
        return self.net(x) * self.rates[1]


@pytest.mark.parametrize(("kind", "expected"), [(Loose, ["meta", "cpu"]), (Reads, ["cpu"])])
def test_building_for_real_where_the_meta_device_will_not_do(kind, expected, tmp_path):
    model = kind([])
    prunus.save(tmp_path / "narrow", model, prunus.Plan())
    seen = []
    loaded = prunus.load(tmp_path / "narrow", lambda: kind(seen))
    assert seen == expected
    assert difference(model, loaded, (torch.randn(3, 2),))[0] == 0


def test_the_wide_network_is_never_made_real(tmp_path):
    devices = []

    def build():
        model = nn.Linear(3, 2)
        devices.append(model.weight.device.type)
        return model

    prunus.save(tmp_path / "narrow", build(), prunus.Plan())
    devices.clear()
    prunus.load(tmp_path / "narrow", build)
    assert devices == ["meta"]


def test_an_earlier_folder_is_replaced_or_kept_whole(tmp_path, monkeypatch):
    folder = tmp_path / "narrow"
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    prunus.save(folder, first, prunus.Plan())
    prunus.save(folder, second, prunus.Plan())
    assert torch.equal(prunus.load(folder, lambda: nn.Linear(2, 2)).weight, second.weight)

    for broken in ("flush", "sha256"):
        with monkeypatch.context() as patch:
            patch.setattr(storage, broken, lambda path: (_ for _ in ()).throw(OSError(28, "No space left on device")))
            with pytest.raises(EditError, match=r"cannot be written.*No space left"):
                prunus.save(folder, first, prunus.Plan())
        assert torch.equal(prunus.load(folder, lambda: nn.Linear(2, 2)).weight, second.weight)
        assert [path.name for path in tmp_path.iterdir()] == ["narrow"]


def test_death_between_the_two_renames_loses_nothing(tmp_path):
    folder = tmp_path / "narrow"
    model, newer = nn.Linear(2, 2), nn.Linear(2, 2)
    prunus.save(folder, model, prunus.Plan())
    folder.rename(tmp_path / ".narrow.replaced")  # where the process died
    (tmp_path / ".narrow.writing").mkdir()
    assert torch.equal(prunus.load(folder, lambda: nn.Linear(2, 2)).weight, model.weight)
    prunus.save(folder, newer, prunus.Plan())
    assert torch.equal(prunus.load(folder, lambda: nn.Linear(2, 2)).weight, newer.weight)
    assert [path.name for path in tmp_path.iterdir()] == ["narrow"]


def test_what_cannot_be_saved(tmp_path):
    with pytest.raises(EditError, match=r"takes a torch\.nn\.Module, got dict"):
        prunus.save(tmp_path / "narrow", {}, prunus.Plan())
    with pytest.raises(EditError, match="takes the plan"):
        prunus.save(tmp_path / "narrow", nn.Linear(2, 2), "plan")
    with pytest.raises(EditError, match="wrapped in DataParallel"):
        prunus.save(tmp_path / "narrow", nn.DataParallel(nn.Linear(2, 2)), prunus.Plan())
    with pytest.raises(EditError, match="weight is on the meta device"):
        prunus.save(tmp_path / "narrow", nn.Linear(2, 2, device="meta"), prunus.Plan())
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("years of work")
    with pytest.raises(EditError, match=r"thesis\.tex"):
        prunus.save(tmp_path / "home", nn.Linear(2, 2), prunus.Plan())
    with pytest.raises(EditError, match="is a file"):
        prunus.save(tmp_path / "home" / "thesis.tex", nn.Linear(2, 2), prunus.Plan())
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["thesis.tex"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_is_not_writable(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(EditError, match="cannot be written"):
        prunus.save(tmp_path / "narrow", nn.Linear(2, 2), prunus.Plan())


@pytest.fixture
def saved(tmp_path):
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    prunus.save(tmp_path / "narrow", model, prunus.Plan())
    return tmp_path / "narrow"


def build():
    return nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))


@pytest.mark.parametrize("name", sorted(FILES))
def test_missing_and_damaged_files_are_named(saved, name):
    content = (saved / name).read_bytes()
    (saved / name).write_bytes(content[:-9])
    with pytest.raises(EditError, match=f"{name}.* is damaged"):
        prunus.load(saved, build)
    (saved / name).unlink()
    with pytest.raises(EditError, match=name):
        prunus.load(saved, build)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 99}, "format 99, this Prunus reads format 1"),
        ({"format": None}, "format None"),
        ({"model": 3}, "model: 3 is not str"),
        ({"tied": ["a"]}, "tied"),
        ({"files": {}}, "is damaged"),
    ],
)
def test_a_manifest_that_is_none(saved, change, message):
    manifest = storage.unsealed((saved / "manifest.json").read_text())
    (saved / "manifest.json").write_text(storage.sealed(manifest | change))
    with pytest.raises(EditError, match=message):
        prunus.load(saved, build)


def test_a_manifest_that_was_changed_is_refused_and_one_without_a_seal_is_read(saved):
    text = (saved / "manifest.json").read_text()
    (saved / "manifest.json").write_text(json.dumps(storage.unsealed(text)))
    prunus.load(saved, build)
    changed = json.loads(text)
    changed["training"] = ["nowhere"]
    (saved / "manifest.json").write_text(json.dumps(changed))
    with pytest.raises(EditError, match="it is not what was written"):
        prunus.load(saved, build)


def test_a_layout_or_a_type_that_does_not_fit_is_no_traceback(saved):
    manifest = storage.unsealed((saved / "manifest.json").read_text())
    names = list(prunus.load(saved, build).state_dict())
    (saved / "manifest.json").write_text(storage.sealed(manifest | {"channels_last": names}))
    prunus.load(saved, build)  # where there is no such layout it is left
    weights = safetensors.torch.load_file(saved / "weights.safetensors")
    first = next(name for name, tensor in weights.items() if tensor.is_floating_point())
    safetensors.torch.save_file(weights | {first: weights[first].long()}, saved / "weights.safetensors")
    files = manifest["files"] | {"weights.safetensors": storage.sha256(saved / "weights.safetensors")}
    (saved / "manifest.json").write_text(storage.sealed(manifest | {"files": files}))
    with pytest.raises(EditError, match=f"{first} is torch.float32 after the plan, torch.int64 in the folder"):
        prunus.load(saved, build)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda: nn.Linear(4, 3), "build.. gives a Linear, the folder holds a Sequential"),
        (lambda: "network", "build.. gives a str, not a torch.nn.Module"),
        (
            lambda: nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 5)),
            r"2\.bias has shape \[5\] after the plan, \[2\] in",
        ),
        (lambda: nn.Sequential(nn.Linear(4, 3), nn.ReLU()), r"it has no 2\.bias"),
        (lambda: build().append(nn.Linear(2, 2)), r"3\.bias is not in the folder"),
    ],
)
def test_another_network_is_refused_by_path(saved, other, message):
    with pytest.raises(EditError, match=message):
        prunus.load(saved, other)


def test_another_tie_is_refused(tmp_path):
    def tied():
        model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
        model[1].weight = model[0].weight
        return model

    prunus.save(tmp_path / "narrow", tied(), prunus.Plan())
    with pytest.raises(EditError, match=r"1\.weight is tied in only one"):
        prunus.load(tmp_path / "narrow", lambda: nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)))


def test_folders_that_are_none(tmp_path):
    with pytest.raises(EditError, match=r"not written by prunus\.save"):
        prunus.load(tmp_path, build)
    with pytest.raises(EditError, match=r"not written by prunus\.save"):
        prunus.load(tmp_path / "nowhere", build)


def test_what_build_raises_comes_through(saved):
    def fails():
        raise ZeroDivisionError("the user's own")

    with pytest.raises(ZeroDivisionError):
        prunus.load(saved, fails)


def test_no_pickle(saved):
    tensors = safetensors.torch.load_file(saved / "weights.safetensors")
    assert tensors.keys() == build().state_dict().keys()
    assert json.loads((saved / "plan.json").read_text())["edits"] == []
