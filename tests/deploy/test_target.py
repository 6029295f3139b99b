"""Targets, their meters and tables: mechanics on small networks with the real backends."""

import dataclasses
import json

import pytest
import torch
from torch import nn

import prunus
from prunus import backends
from prunus.budget import Budget
from prunus.budget.latency_model import KnownLatency
from prunus.deploy.latency_table import LatencyTable, table_key
from prunus.deploy.units import network_units
from prunus.errors import BudgetError, DeployError, RecipeError
from prunus.records.typed import typed
from prunus.surgery.removal import removal


class Network(nn.Module):
    """Every kind of unit: convolutions plain, grouped, depthwise, transposed and with "same" padding, linear layers."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding="same", bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.depthwise = nn.Conv2d(16, 16, (3, 1), padding=(1, 0), groups=16)
        self.grouped = nn.Conv2d(16, 24, 3, stride=2, groups=2)
        self.up = nn.ConvTranspose2d(24, 20, 3, stride=2, padding=1, output_padding=1)
        self.dilated = nn.Conv2d(20, 32, 3, dilation=2, padding="same")
        self.hidden, self.last = nn.Linear(32, 40), nn.Linear(40, 5)

    def forward(self, x):
        x = torch.relu(self.norm(self.stem(x)))
        x = torch.relu(self.up(torch.relu(self.grouped(torch.relu(self.depthwise(x))))))
        return self.last(torch.relu(self.hidden(torch.relu(self.dilated(x)).mean((2, 3)))))


@pytest.fixture(scope="module")
def traced():
    torch.manual_seed(0)
    model, images = Network().eval(), torch.randn(1, 3, 20, 20)
    return model, images, prunus.trace(model, images)


def present():
    return [name for name in ("onnxruntime", "openvino", "torch") if backends.find(name).absence() is None]


def test_units_are_all_layers_at_their_sizes(traced, tmp_path):
    model, images, groups = traced
    units = {unit.name: unit for unit in network_units(model, groups, (images,))}
    assert set(units) == {"stem", "depthwise", "grouped", "up", "dilated", "hidden", "last"}
    expected = {"stem": (16, 3), "depthwise": (16,), "grouped": (24, 8), "up": (20, 24), "hidden": (40, 32)}
    assert {name: units[name].full for name in expected} == expected
    for name, unit in units.items():
        sizes = tuple(max(2, size // 2) // 2 * 2 for size in unit.full)
        made, layer = unit.shape.module(sizes), model.get_submodule(name)
        given = torch.randn(unit.shape.input_shape(sizes))
        whole = torch.randn(unit.shape.input_shape(unit.full))
        assert layer(whole).numel() == unit.written * unit.full[0]
        assert made(given).shape[2:] == layer(whole).shape[2:] or unit.shape.kind == "MatMul"
        unit.shape.write(sizes, tmp_path / "unit.onnx")
        with backends.find("onnxruntime").load(tmp_path / "unit.onnx", [tuple(given.shape)], 1) as session:
            assert session.run([given.numpy()])["output"].shape == tuple(made(given).shape)


@pytest.mark.parametrize("name", present())
def test_a_backend_times_a_unit(traced, name, tmp_path):
    model, images, groups = traced
    unit = network_units(model, groups, (images,))[0]
    backend = backends.find(name)
    unit.shape.write((16, 3), tmp_path / "unit.onnx")
    network = unit.shape.module((16, 3)).eval() if backend.reads_modules else tmp_path / "unit.onnx"
    assert 0 < backend.unit_milliseconds(network, [images.numpy()], 1, 3) < 1000


def test_a_budget_is_solved_on_a_target(traced, tmp_path):
    model, images, groups = traced
    told = []
    meter = prunus.TargetMeter(
        prunus.Target(),
        images,
        table=tmp_path / "table.json",
        warmup=1,
        repeats=3,
        progress=lambda *what: told.append(what),
    )
    budget = Budget(latency=0.9)
    try:  # so small a network is all overhead, and the machine may be busy: what is tested is how, not what is reached
        plan = prunus.select(model, groups, budget=budget, meter=meter)
    except BudgetError as error:
        assert "smallest network takes" in str(error)
    else:
        assert meter.reached is not None
        assert meter.reached.best.measured_ms <= meter.reached.limit_ms
        assert "predicted -> measured" in str(meter.reached)
        assert prunus.apply(plan, model)(images).shape == (1, 5)
    assert {what for what, _, _ in told} == {"units", "networks"}
    table = json.loads((tmp_path / "table.json").read_text())
    assert table["key"] == table_key(prunus.Target())
    assert table["units"]


def test_a_table_is_used_again(traced, tmp_path, monkeypatch):
    model, images, groups = traced
    target, path = prunus.Target(), tmp_path / "table.json"
    prunus.TargetMeter(target, images, table=path).latency_model(model, groups, lambda gone: 1.0)
    before = path.read_bytes()
    monkeypatch.setattr("prunus.deploy.latency_model._measured", lambda *_: pytest.fail("measured again"))
    prunus.TargetMeter(target, images, table=path).latency_model(model, groups, lambda gone: 1.0)
    assert path.read_bytes() == before


def test_a_table_that_was_interrupted_goes_on(traced, tmp_path, monkeypatch):
    model, images, groups = traced
    path, asked = tmp_path / "table.json", []

    def run(most):
        def measured(shape, sizes, target, backend):
            asked.append((shape.key, "x".join(map(str, sizes))))
            if len(asked) > most:
                raise KeyboardInterrupt
            return 0.1 + 0.01 * sizes[0]

        monkeypatch.setattr("prunus.deploy.latency_model._measured", measured)
        prunus.TargetMeter(prunus.Target(), images, table=path).latency_model(model, groups, lambda gone: 1.0)

    with pytest.raises(KeyboardInterrupt):
        run(most=60)
    known = {(key, sizes) for key, entries in json.loads(path.read_text())["units"].items() for sizes in entries}
    asked.clear()
    run(most=10**6)
    assert known
    assert asked
    assert not known & set(asked)


def test_a_table_of_other_hardware_is_refused_unless_told(tmp_path):
    here, path = table_key(prunus.Target()), tmp_path / "table.json"
    table = LatencyTable({**here, "processor": "Abacus 3"}, path)
    table.add("MatMul leading=1 groups=1", (4, 4), 0.5)
    table.save()
    with pytest.raises(DeployError, match=r"processor 'Abacus 3' there.*any_hardware=True"):
        LatencyTable(here, path)
    assert LatencyTable(here, path, any_hardware=True).find("MatMul leading=1 groups=1", (4, 4)) == 0.5


@pytest.mark.parametrize(
    "content",
    [
        *("{", "[]", '{"format": 7}', '{"format": 1, "key": 3}', '{"format": 1, "key": {}, "units": {"a": {"1": -1}}}'),
        '{"format": 1, "key": {}, "units": {}, "networks": {"a": [{"removed": [1]}]}}',
        '{"format": 1, "key": {}, "units": {}, "networks": {"a": [{"removed": [-1], "ms": 1}]}}',
        '{"format": 1, "key": {}, "units": {}, "networks": {"a": [{"removed": ["b"], "ms": 1}]}}',
    ],
)
def test_a_file_that_is_no_table_is_refused(tmp_path, content):
    path = tmp_path / "table.json"
    path.write_text(content)
    with pytest.raises(DeployError, match="table"):
        LatencyTable({"backend": "torch"}, path, any_hardware=True)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"backend": "onnxrutime"}, r"onnxruntime.*Usable here: .*torch"),
        ({"precision": "fp8"}, r"fp8.*onnxruntime: fp32"),
        ({"device": "npu"}, r"runs on 'cpu', not on 'npu'"),
        ({"threads": 0}, "threads"),
        ({"batch": True}, "batch"),
        ({"resolution": (512,)}, "resolution"),
    ],
)
def test_a_target_that_is_none_is_refused(settings, said):
    with pytest.raises(RecipeError, match=said):
        prunus.Target(**settings)


def test_an_absent_backend_is_named_with_what_is_here():
    absent = [name for name in backends.BACKENDS if backends.find(name).absence() is not None]
    for name in absent:
        with pytest.raises(DeployError, match=r"install.*Available: .*torch"):
            prunus.Target(backend=name, device=backends.find(name).device).require()


def test_an_example_of_another_resolution_is_refused(traced):
    with pytest.raises(DeployError, match="20 x 20, the target 512 x 1024"):
        prunus.TargetMeter(prunus.Target(resolution=(512, 1024)), traced[1])
    assert prunus.TargetMeter(prunus.Target(batch=3), traced[1]).inputs[0].shape == (3, 3, 20, 20)


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("torch", prunus.Target(backend="torch")),
        ("onnxruntime,threads=4,batch=2", prunus.Target(threads=4, batch=2)),
        ("onnxruntime,resolution=512x1024", prunus.Target(resolution=(512, 1024))),
    ],
)
def test_a_target_is_named_by_a_text(text, target):
    assert prunus.Target.parse(text) == target
    assert prunus.Target.parse(str(target)) == target


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("onnxruntime,cores=4", r"'cores=4' is not one of its settings.*threads="),
        ("onnxruntime,threads=many", "threads is 'many'"),
        ("onnxruntime,resolution=512", "not a resolution.*512x1024"),
        ("onnxruntime,threads=2,threads=3", "gives threads twice"),
        ("onnxruntime,table=a.json,remote=maybe", "Target.remote is 'maybe': true or false"),
    ],
)
def test_a_text_that_names_no_target_is_refused(text, said):
    with pytest.raises(RecipeError, match=said):
        prunus.Target.parse(text)


def test_a_budget_names_its_target(traced):
    model, images, groups = traced
    budget = Budget(latency=0.9, target=prunus.Target(threads=2))
    with pytest.raises(BudgetError, match="no latency is bounded"):
        Budget(macs=0.5, target=prunus.Target())
    with pytest.raises(BudgetError, match=r"give a prunus\.Target"):
        Budget(latency=0.5, target="onnxruntime")
    with pytest.raises(BudgetError, match=r"TargetMeter\(budget\.target, example\)"):
        prunus.select(model, groups, budget=budget)
    with pytest.raises(BudgetError, match="is for onnxruntime,threads=2, and the meter measures on onnxruntime:"):
        prunus.select(model, groups, budget=budget, meter=prunus.TargetMeter(prunus.Target(), images))


def test_a_shrinker_measures_on_the_target_of_its_budget(traced):
    model, images, _ = traced
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    target = prunus.Target(backend="torch", batch=2)
    shrinker = prunus.Shrinker(model, optimizer, images, budget=Budget(latency=0.9, target=target))
    meter = shrinker.pressure.meter
    assert isinstance(meter, prunus.TargetMeter)
    assert meter.target == target
    assert meter.inputs[0].shape[0] == 2


def test_targets_and_backends_are_one_list():
    settings = prunus.BenchmarkSettings(backends=("torch", "onnxruntime"), threads=2, targets=(prunus.Target(),))
    assert list(map(str, settings.all_targets)) == ["onnxruntime", "torch,threads=2", "onnxruntime,threads=2"]


def test_the_model_follows_a_network_that_becomes_narrower(traced):
    model, images, groups = traced
    meter = prunus.TargetMeter(prunus.Target(), images)
    wide = meter.latency_model(model, groups, lambda gone: 1.0 + float((~gone).sum()))
    gone = groups.exact & (torch.arange(len(groups)) % 3 == 0)
    small = prunus.apply(removal(groups, gone), model)
    narrow = meter.follow(KnownLatency.of(wide), small, prunus.trace(small, images))
    left = narrow.units[0].sizes[0].numel()
    assert left == int((~gone[wide.units[0].sizes[0]]).sum())
    everything = torch.ones(len(groups) - int(gone.sum()), dtype=torch.bool)
    assert narrow.predicted(everything) == pytest.approx(wide.predicted(~gone))
    again = typed(KnownLatency, json.loads(json.dumps(dataclasses.asdict(KnownLatency.of(narrow)))), "known")
    assert again == KnownLatency.of(narrow)
