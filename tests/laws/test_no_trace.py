"""What is the user's stays as it was: no call leaves a trace in a network, its attributes, its modes or its example."""

import contextlib
import copy
import importlib.util
import random
import sys
from pathlib import Path

import nets
import numpy
import pytest
import torch
from torch import nn

import prunus
from prunus.compat import torchvision
from prunus.errors import EditError
from prunus.modules.hooks import parameter_hooks as hooks_of_parameter
from prunus.surgery.removal import removal, spare_layers


def select(model, inputs):
    return prunus.select(model, prunus.trace(model, inputs)) if removable(model, inputs) else prunus.Plan()


def removable(model, inputs):
    return bool(prunus.trace(model, inputs).exact.any())


def cut(model, inputs):
    """Apply a plan that removes something, wherever something can be removed."""
    groups = prunus.trace(model, inputs)
    chosen = spare_layers(groups, groups.exact)
    prunus.apply(removal(groups, chosen), model)


def expand(model, inputs):
    """Plan and apply what widens a layer; networks without such a layer are refused by name."""
    with contextlib.suppress(EditError):
        prunus.apply(prunus.expand(model, "*", 2, keep_function=True), model)


def factorize(model, inputs):
    with contextlib.suppress(EditError):
        prunus.apply(prunus.factorize(model, rank=1), model)


CALLS = {
    "trace": prunus.trace,
    "check_removal": prunus.check_removal,
    "select": select,
    "apply": cut,
    "fuse": lambda model, inputs: prunus.apply(prunus.fuse(model, inputs), model),
    "bypass": prunus.bypass,
    "expand": expand,
    "factorize": factorize,
    "empty plan": lambda model, inputs: prunus.apply(prunus.Plan(), model),
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


def require_no_trace(build, *, ran, calls=tuple(CALLS)):
    """Call Prunus on a network, and compare it with a twin on which nothing was called."""
    (model, inputs), (twin, copies) = build(), build()
    if ran:
        model(*inputs), twin(*copies)
    for call in map(CALLS.get, calls):
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


def whole_zoo():
    path = Path(__file__).parents[2] / "benchmarks" / "zoo_networks.py"
    spec = importlib.util.spec_from_file_location("zoo_networks", path)
    sys.modules["zoo_networks"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {f"{network.source}/{network.name}": network.build for network in module.networks()}


ZOO = whole_zoo()


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ZOO)
def test_no_network_of_the_zoo_shows_a_trace(name):
    torch.manual_seed(0)
    model, inputs = ZOO[name]()
    twin, copies = copy.deepcopy(model.eval()), [each.clone() for each in inputs]
    built = iter([(model, inputs), (twin, copies)])
    require_no_trace(lambda: next(built), ran=False, calls=("trace", "check_removal", "apply"))


class Stateful(nn.Module):
    """Keeps features, counts, positions, hooks of every kind; writes into its input; overrides `train`."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1)
        self.features, self.positions, self.calls, self.seen = [], {}, 0, []
        self.register_buffer("steps", torch.zeros(()))
        self.register_buffer("prior", self.stem.bias * 2)
        self.stem.register_forward_hook(lambda module, args, output: self.seen.append(output.shape))
        self.head.register_forward_pre_hook(self.collect)
        self.head.weight.register_hook(lambda gradient: gradient * 2)
        self.stem.weight.register_post_accumulate_grad_hook(lambda parameter: None)

    def collect(self, module, args):
        self.features = [*self.features[-1:], args[0]]

    def train(self, mode=True):
        super().train(mode)
        self.positions.clear()

    def forward(self, x):
        x -= 0.5
        self.calls += 1
        self.steps += 1
        size = x.shape[-2:]
        if size not in self.positions:
            self.positions[size] = torch.linspace(0, 1, size[1])
        return {"out": [self.head(torch.relu(self.norm(self.stem(x))) * self.positions[size])]}


def save(model, inputs, folder):
    prunus.save(folder / "net", model, prunus.Plan())


def deploy(model, inputs, folder):
    path = prunus.export_onnx(model, inputs[0], folder / "net.onnx", dynamic_batch=False)
    prunus.check_parity(model, path, inputs[0])
    prunus.deploy.latency_ms(model, inputs[0], warmup=0, repeats=1)
    prunus.deploy.LatencyMeter(model, inputs[0])(model)


def benchmark(model, inputs, folder):
    settings = prunus.BenchmarkSettings(backends=("torch", "onnxruntime"), warmup=0, repeats=1, measure_memory=False)
    prunus.benchmark({"net": model}, tuple(inputs[0].shape[1:]), settings)


def budget(model, inputs, folder):
    groups = prunus.trace(model, inputs)
    prunus.apply(prunus.select(model, groups, budget=prunus.Budget(params=0.7)), model)
    meter = lambda network: sum(parameter.numel() for parameter in network.parameters())  # noqa: E731
    prunus.select(model, groups, budget=prunus.Budget(latency=0.7), meter=meter)


FURTHER = {"save": save, "deploy": deploy, "benchmark": benchmark, "budget": budget}


@pytest.mark.parametrize("ran", [False, True], ids=["fresh", "ran"])
@pytest.mark.parametrize("name", [*CALLS, *FURTHER])
def test_a_network_that_keeps_things_keeps_them(name, ran, tmp_path):
    torch.manual_seed(0)
    model, inputs = Stateful(), (torch.randn(2, 3, 8, 8),)
    if ran:
        model(inputs[0].clone())["out"][0].sum().backward()
    call = FURTHER[name] if name in FURTHER else lambda model, inputs, folder: CALLS[name](model, inputs)
    before = nets.state(model), attributes(model), generators(), [each.clone() for each in inputs]
    hooks = parameter_hooks(model)
    call(model, inputs, tmp_path)
    nets.assert_same_state(before[0], nets.state(model))
    assert (attributes(model), generators()) == before[1:3] and parameter_hooks(model) == hooks
    assert all(torch.equal(one, other) for one, other in zip(inputs, before[3], strict=True))


def parameter_hooks(model):
    return {name: hooks_of_parameter(parameter) for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.bfloat16])
def test_torchs_defaults_change_nothing(kind, tmp_path):
    """The same plan and the same file, whatever type torch makes tensors of."""

    def results(folder):
        folder.mkdir()
        torch.manual_seed(0)
        model, x = nets.CASES["plain"].model(torch.float32), nets.CASES["plain"].inputs(torch.float32)[0]
        torch.set_default_dtype(wanted)
        try:
            groups = prunus.trace(model, x)
            plan = prunus.select(model, groups, budget=prunus.Budget(params=0.5))
            record = prunus.check_removal(model, x)
            path = prunus.export_onnx(model, x, folder / "net.onnx")
            assert prunus.check_parity(model, path, x).passed and record.passed
            penalty = prunus.GroupLasso(strength=0.1).bind(model, groups)
            penalty.prox_(step_size=0.1)
            edits = prunus.expand(model, "0", 2, keep_function=True) + prunus.fuse(model, x)
            return plan, record, edits, [parameter.clone() for parameter in model.parameters()]
        finally:
            torch.set_default_dtype(torch.float32)

    wanted = torch.float32
    usual = results(tmp_path / "usual")
    wanted = kind
    other = results(tmp_path / "other")
    assert usual[:3] == other[:3]
    assert all(torch.equal(one, two) for one, two in zip(usual[3], other[3], strict=True))


def test_a_half_precision_network_goes_the_whole_way(tmp_path):
    for kind in (torch.float16, torch.bfloat16):
        model, x = (
            nets.CASES["plain"].model(torch.float32).to(kind),
            nets.CASES["plain"].inputs(torch.float32)[0].to(kind),
        )
        assert prunus.check_removal(model, x).passed
        small = prunus.apply(prunus.select(model, prunus.trace(model, x), budget=prunus.Budget(params=0.5)), model)
        assert all(parameter.dtype == kind for parameter in small.parameters()) and small(x).dtype == kind


def test_torchs_default_device_changes_nothing(tmp_path):
    """On the meta device, where a tensor that was made by default would have no values."""
    torch.manual_seed(0)
    model, x = nets.CASES["plain"].model(torch.float32), nets.CASES["plain"].inputs(torch.float32)[0]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(x).sum().backward()
    optimizer.step()
    usual = prunus.select(model, prunus.trace(model, x), budget=prunus.Budget(params=0.5))
    torch.set_default_device("meta")
    try:
        groups = prunus.trace(model, x)
        assert groups.coverage().rows and prunus.check_removal(model, x).passed
        plan = prunus.select(model, groups, budget=prunus.Budget(params=0.5))
        assert plan == usual
        small = prunus.apply(prunus.fuse(model, x), prunus.apply(plan, model))
        prunus.carry_(plan, optimizer, model, prunus.apply(plan, model))
        prunus.GroupLasso(strength=0.1).bind(model, groups).prox_(step_size=0.1)
        factors = prunus.apply(prunus.factorize(small, rank=1), small)
        assert {parameter.device.type for parameter in factors.parameters()} == {"cpu"}
        path = prunus.export_onnx(small, x, tmp_path / "net.onnx")
        assert prunus.check_parity(small, path, x).passed
    finally:
        torch.set_default_device("cpu")
