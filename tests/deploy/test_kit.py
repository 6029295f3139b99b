"""The kit for a machine that has the runtime and numpy alone, and the table that is read of it."""

import json
import signal
import subprocess
import sys
import venv

import pytest
import torch
from torch import nn

import prunus
from prunus.backends import BACKENDS
from prunus.backends.openvino import _core, _settings
from prunus.budget import Budget
from prunus.cli import main
from prunus.deploy import kit_script
from prunus.deploy.kit import digest, write_kit
from prunus.deploy.measured_kit import read_kit
from prunus.errors import BudgetError, DeployError, RecipeError
from prunus.interrupt import Interrupted

BLOCKED = """
import importlib.abc, runpy, sys

class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] in ("torch", "prunus", "onnx", "scipy"):
            raise ImportError(f"{name} is not on this machine")

sys.meta_path.insert(0, Blocked())
runpy.run_path(sys.argv[1], run_name="__main__")
"""


@pytest.fixture(scope="module")
def traced():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 24, 3, padding=1),
        nn.BatchNorm2d(24),
        nn.ReLU(),
        nn.Conv2d(24, 16, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16 * 8 * 8, 5),
    )
    images = torch.randn(1, 3, 10, 10)
    return net.eval(), images, prunus.trace(net, images)


@pytest.fixture(scope="module")
def measured(traced, tmp_path_factory):
    folder = tmp_path_factory.mktemp("kit") / "kit"
    model, images, groups = traced
    write_kit(folder, model, groups, (images,), prunus.Target(threads=1))
    run(folder)
    return folder


def run(folder, python=(sys.executable, "-I", "-c", BLOCKED)):
    done = subprocess.run([*python, str(folder / "measure.py")], capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    return done.stdout


def copy(folder, tmp_path, **changes):
    """A kit as `folder`, with other contents of its JSON files."""
    for name in ("kit", "measured"):
        content = json.loads((folder / f"{name}.json").read_text())
        changes.get(name, lambda content: None)(content)
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    return tmp_path


def test_a_machine_without_torch_measures_and_its_table_is_a_target(measured, traced, tmp_path):
    model, images, groups = traced
    found = read_kit(measured, tmp_path / "there.json")
    assert found.machine["threads"] == 1 and found.machine["precision"] == "fp32"
    assert found.machine["version"] == BACKENDS["onnxruntime"].version()
    found.table.save()
    target = prunus.Target(table=str(tmp_path / "there.json"), remote=True)
    budget = Budget(latency=0.8, target=target)
    meter = prunus.TargetMeter(target, images)
    try:  # so small a network is mostly overhead
        plan = prunus.select(model, groups, budget=budget, meter=meter)
    except BudgetError as error:
        assert "cannot be met" in str(error)
    else:
        assert "predicted" in plan.notes[-1] and "another machine" in plan.notes[-1]
        assert prunus.apply(plan, model)(images).shape == (1, 5)
    with pytest.raises(DeployError, match="nothing can be measured from here"):
        meter(model)


def test_the_table_of_another_machine_is_refused_unless_told(measured, traced, tmp_path):
    (tmp_path / "kit").mkdir()

    def elsewhere(content):
        content["machine"]["processor"] = "Abacus 3"

    read_kit(copy(measured, tmp_path / "kit", measured=elsewhere), tmp_path / "there.json").table.save()
    table = str(tmp_path / "there.json")
    with pytest.raises(DeployError, match=r"'Abacus 3' there.*remote=True"):
        prunus.TargetMeter(prunus.Target(table=table), traced[1])
    assert prunus.TargetMeter(prunus.Target(table=table, remote=True), traced[1]).table.key["processor"] == "Abacus 3"
    with pytest.raises(DeployError, match="threads 1 there, 2 here"):
        prunus.TargetMeter(prunus.Target(table=table, remote=True, threads=2), traced[1])
    with pytest.raises(RecipeError, match="give table="):
        prunus.Target(remote=True)


def test_the_table_of_another_network_is_refused(measured, traced, tmp_path):
    read_kit(measured, tmp_path / "there.json").table.save()
    target = prunus.Target(table=str(tmp_path / "there.json"), remote=True)
    other = nn.Sequential(nn.Conv2d(3, 24, 5), nn.ReLU(), nn.Conv2d(24, 16, 3)).eval()
    with pytest.raises(DeployError, match=r"lacks Conv .*prunus target kit"):
        prunus.select(
            other,
            prunus.trace(other, traced[1]),
            budget=Budget(latency=0.5),
            meter=prunus.TargetMeter(target, traced[1]),
        )


def test_the_script_goes_on_where_it_was_stopped(measured, tmp_path):
    kept = json.loads((measured / "measured.json").read_text())
    whole = dict(kept["items"])
    last = list(whole)[-1]
    rest = {name: entry for name, entry in whole.items() if name != last}
    (measured / "measured.json").write_text(json.dumps({**kept, "items": rest}))
    with pytest.raises(DeployError, match=rf"{len(whole) - 1} of {len(whole)} files, {last} is not.*it resumes"):
        read_kit(measured, tmp_path / "table.json")
    assert len(run(measured).splitlines()) == 2
    now = json.loads((measured / "measured.json").read_text())["items"]
    assert {name: entry for name, entry in now.items() if name != last} == rest
    assert last in now


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"kit": lambda c: c.update(format=7)}, r"kit.json has format 7"),
        ({"measured": lambda c: c.update(format=7)}, r"measured.json has format 7"),
        ({"measured": lambda c: c.update(kit="another")}, "not of the kit beside it"),
        ({"kit": lambda c: c["items"].pop()}, "or that was changed"),
        ({"measured": lambda c: c["items"].update({"unit-00000.onnx": {"ms": -1}})}, "partly measured"),
        ({"measured": lambda c: c.pop("machine")}, r"measured.json cannot be read: machine: None is not an object"),
        ({"measured": lambda c: c["machine"].update(version=3)}, r"machine.version: 3 is not str.*Make the kit again"),
        ({"measured": lambda c: c.update(items=[])}, r"measured.json cannot be read: items"),
    ],
)
def test_what_is_no_measured_kit_is_refused(measured, tmp_path, changes, said):
    with pytest.raises(DeployError, match=said):
        read_kit(copy(measured, tmp_path, **changes), tmp_path / "table.json")


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"items": [{"kind": "unit"}]}, "field 'file' is missing"), ({"items": 3}, "items"), ({"target": None}, "target")],
)
def test_a_crafted_kit_is_refused(tmp_path, changes, said):
    kit = {"format": kit_script.FORMAT, "items": [], "target": {}} | changes
    kit["id"] = digest(kit)
    machine = {"version": "9", "processor": "Abacus 3", "threads": 1, "precision": "fp32"}
    measured = {"format": kit_script.FORMAT, "kit": kit["id"], "machine": machine, "items": {}}
    (tmp_path / "kit.json").write_text(json.dumps(kit))
    (tmp_path / "measured.json").write_text(json.dumps(measured))
    with pytest.raises(DeployError, match=rf"kit.json cannot be read: items.*{said}|kit.json cannot be read: {said}"):
        read_kit(tmp_path, tmp_path / "table.json")


def test_a_folder_that_is_no_kit_or_in_use_is_refused(measured, traced, tmp_path):
    model, images, groups = traced
    with pytest.raises(DeployError, match="`prunus target kit` writes it"):
        read_kit(tmp_path, tmp_path / "table.json")
    with pytest.raises(DeployError, match="is not empty"):
        write_kit(measured, model, groups, (images,), prunus.Target())
    with pytest.raises(DeployError, match="not in torch"):
        write_kit(tmp_path, model, groups, (images,), prunus.Target(backend="torch"))


def test_a_kit_is_whole_or_not_there(traced, tmp_path):
    model, images, groups = traced

    def stop(what, done, whole):
        raise Interrupted(signal.SIGTERM)

    with pytest.raises(Interrupted):
        write_kit(tmp_path / "kit", model, groups, (images,), prunus.Target(), stop)
    assert not list(tmp_path.iterdir())
    write_kit(tmp_path / "kit", model, groups, (images,), prunus.Target())
    assert (tmp_path / "kit" / "kit.json").is_file() and [path.name for path in tmp_path.iterdir()] == ["kit"]
    (tmp_path / "file").touch()
    with pytest.raises(DeployError, match="file cannot be written"):
        write_kit(tmp_path / "file", model, groups, (images,), prunus.Target())


def test_the_script_uses_a_runtime_as_the_backends_do(traced, tmp_path, monkeypatch):
    pytest.importorskip("openvino")
    monkeypatch.setattr(kit_script.OpenVino, "core", _core())  # a process has one
    model, images, groups = traced
    write_kit(tmp_path / "kit", model, groups, (images,), prunus.Target(backend="openvino", threads=1))
    kit = json.loads((tmp_path / "kit" / "kit.json").read_text())
    item = next(each for each in kit["items"] if each["kind"] == "unit")
    found = kit_script.timed(item, kit["items"][-1], tmp_path / "kit", kit_script.RUNTIMES["openvino"], 1)
    assert 0 < found["ms"] < 1000
    assert all(f'"{name}": ' in (tmp_path / "kit" / "measure.py").read_text() for name in _settings(1))
    assert BACKENDS["openvino"].layout == kit_script.OpenVino.layout
    assert BACKENDS["onnxruntime"].layout == kit_script.OnnxRuntime.layout


def test_the_command_line_writes_and_reads_a_kit(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("prunus.cli.process.prepare", lambda: None)
    folder, table = tmp_path / "kit", tmp_path / "table.json"
    assert main(["target", "kit", str(folder), "tiny:build", "--shape", "1,3,16,32"]) == 0
    assert "run `python measure.py` there" in capsys.readouterr().out.replace("\n", " ")
    assert main(["target", "read", str(folder), "--output", str(table)]) == 1
    assert "measured.json is not there" in capsys.readouterr().err.replace("\n", " ")
    kit = json.loads((folder / "kit.json").read_text())
    machine = {"version": "9", "processor": "Abacus 3", "threads": 1, "precision": "fp32"}
    entry = {"ms": 0.5, "reference_ms": 0.25, "spread": 2.0, "rounds": 12}
    items = {item["file"]: entry for item in kit["items"]}
    content = {"format": kit_script.FORMAT, "kit": kit["id"], "machine": machine, "items": items}
    (folder / "measured.json").write_text(json.dumps(content))
    assert main(["target", "read", str(folder), "--output", str(table)]) == 0
    said = capsys.readouterr().out.replace("\n", " ")
    assert "Abacus 3" in said and "measured while the machine was busy" in said
    assert json.loads(table.read_text())["key"]["processor"] == "Abacus 3"


@pytest.mark.slow  # the package index gives the runtime
def test_in_an_environment_of_its_own(traced, tmp_path):
    model, images, groups = traced
    write_kit(tmp_path / "kit", model, groups, (images,), prunus.Target())
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", "onnxruntime", "numpy"], check=True, timeout=600)
    absent = subprocess.run([python, "-c", "import torch"], capture_output=True, check=False)
    assert absent.returncode
    run(tmp_path / "kit", (str(python),))
    assert len(read_kit(tmp_path / "kit", tmp_path / "table.json").table)
